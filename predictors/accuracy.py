"""Error of a joint genotype, predicted by a Gaussian process on the genes.

The logarithm of the error is modelled: networks that collapse at low bits, with errors fifty times those of the good
ones, would dominate a squared loss on the error itself.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, SearchSpace, active, canonical, choice_counts
from predictors.lattice import LatticeSums, lattice_sums
from predictors.prediction import Prediction

ERROR_FLOOR = 1e-3

_MOST_DISTANCES = 1 << 20


@dataclass(frozen=True)
class AccuracyPredictor:
    """A fitted Gaussian process; `samples` and `errors` are what it was fitted to, `theta` its hyper-parameters."""

    space: SearchSpace
    samples: IntArray
    errors: FloatArray
    theta: FloatArray
    process: GaussianProcessRegressor

    def predict(self, population: IntArray) -> Prediction:
        """Error in [0, 1] (median of the log-normal) and its standard deviation, each of shape (n,)."""
        mean, std = self.process.predict(encode(self.space, population), return_std=True)
        error = np.exp(mean)
        return Prediction(error, error * std)

    def mean(self, population: IntArray) -> FloatArray:
        """The error alone of canonical genotypes, shape (n,): the same up to rounding, for millions of networks."""
        if self._lattice is None:
            logarithm: FloatArray = self.process.predict(encode(self.space, population))
        else:
            logarithm = self.process._y_train_mean + self.process._y_train_std * self._lattice(population)
        return np.exp(logarithm)

    @cached_property
    def _lattice(self) -> LatticeSums | None:
        """None where squared distances between encodings do not come down to small whole numbers."""
        steps = np.maximum(choice_counts(self.space) - 1, 1)
        unit = math.lcm(*steps.tolist())
        if len(steps) * unit**2 > _MOST_DISTANCES:
            return None

        def kernel(distance: FloatArray) -> FloatArray:
            values: FloatArray = self.process.kernel_(distance[:, None], np.zeros((1, 1)))[:, 0]
            return values

        return lattice_sums(kernel, unit // steps, unit, canonical(self.space, self.samples), self.process.alpha_)

    def taught(self, samples: IntArray, errors: FloatArray) -> AccuracyPredictor:
        """The predictor after more networks, with the hyper-parameters it has.

        Networks that a search proposes lie close together. Their likelihood speaks for no noise and a short length
        scale, with which what lies between them and all others is predicted worse than with those of a broad sample.

        Args:
            samples: Genotypes that it was not fitted to, canonical, shape (n, genes).
            errors: Their errors, shape (n,).
        """
        together = np.concatenate([self.samples, samples]), np.concatenate([self.errors, errors])
        return _build(self.space, *together, _kernel().clone_with_theta(self.theta), None, 0)

    def save(self, path: Path) -> None:
        """Write what `load` needs, as plain arrays."""
        with path.open("wb") as file:
            np.savez(file, samples=self.samples, errors=self.errors, theta=self.theta)


def fit(space: SearchSpace, samples: IntArray, errors: FloatArray, seed: int) -> AccuracyPredictor:
    """Fit to measured errors.

    Args:
        space: The space the samples belong to.
        samples: Genotypes, canonical, shape (n, genes).
        errors: Their errors on the validation split, shape (n,), in [0, 1].
        seed: Seed of the hyper-parameter search's restarts.

    Raises:
        NasError: Fewer than ten samples, or errors that are all the same.
    """
    if len(samples) < 10 or np.ptp(errors) == 0:
        raise NasError(
            f"the accuracy predictor needs at least 10 samples with differing errors, got {len(samples)} samples "
            f"with errors {errors.min():.3g}..{errors.max():.3g}; raise predictors.accuracy.samples"
        )
    return _build(space, samples, errors, _kernel(), "fmin_l_bfgs_b", seed)


def load(space: SearchSpace, path: Path) -> AccuracyPredictor:
    """Read a saved predictor; it predicts exactly what it did when it was saved."""
    with np.load(path) as arrays:
        kernel = _kernel().clone_with_theta(arrays["theta"])
        return _build(space, arrays["samples"], arrays["errors"], kernel, None, 0)


def encode(space: SearchSpace, population: IntArray) -> FloatArray:
    """Each gene's place between its least and its largest choice, 0 where it has no effect; shape (n, genes)."""
    steps = np.maximum(choice_counts(space) - 1, 1)
    return np.where(active(space, population), population / steps, 0.0)


def _build(
    space: SearchSpace, samples: IntArray, errors: FloatArray, kernel: Kernel, optimizer: str | None, seed: int
) -> AccuracyPredictor:
    process = GaussianProcessRegressor(
        kernel, alpha=1e-8, normalize_y=True, optimizer=optimizer, n_restarts_optimizer=1 if optimizer else 0,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bounds are priors: an optimum at one is an answer
        process.fit(encode(space, samples), np.log(np.maximum(errors, ERROR_FLOOR)))
    return AccuracyPredictor(space, samples, errors, process.kernel_.theta, process)


def _kernel() -> Kernel:
    return ConstantKernel(1.0, (1e-2, 1e3)) * Matern(3.0, (0.1, 100.0), nu=2.5) + WhiteKernel(0.1, (1e-4, 10.0))

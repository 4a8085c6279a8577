"""Perceptrons of three hidden layers of 400 units, as APQ's accuracy predictor (CVPR 2020), several of them.

Their mean is the prediction, and how they differ its uncertainty (Lakshminarayanan et al., NeurIPS 2017).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from nas.genotype import FloatArray, IntArray
from predictors.boosting import Arrays
from predictors.prediction import Prediction

HIDDEN = (400, 400, 400)
_MEMBERS = 3
_EPOCHS = 80
_FLOOR = 0.05
"""Least standard deviation, in units of standardised values: members that agree are not certain."""


@dataclass(frozen=True)
class MlpEnsemble:
    """Weights, each of shape (members, in, out), and biases, each of shape (members, out), layer by layer."""

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    def predict(self, features: FloatArray) -> Prediction:
        """Mean and spread of the members' outputs, for features of shape (n, columns)."""
        hidden: FloatArray = np.broadcast_to(features, (len(self.weights[0]), *features.shape))
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight + bias[:, None]
            if layer + 1 < len(self.weights):
                hidden = np.maximum(hidden, 0)
        outputs = hidden[..., 0]
        return Prediction(outputs.mean(axis=0), np.hypot(outputs.std(axis=0), _FLOOR))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs."""
        weights = {f"weight{layer}": weight for layer, weight in enumerate(self.weights)}
        return {**weights, **{f"bias{layer}": bias for layer, bias in enumerate(self.biases)}}


def fit(features: FloatArray, values: FloatArray, groups: IntArray, seed: int) -> MlpEnsemble:
    """Fit to standardised values, shape (n,), of features, shape (n, columns); `groups` is not used."""
    members = [_member(features, values, seed * _MEMBERS + member) for member in range(_MEMBERS)]
    layers = range(len(HIDDEN) + 1)
    return MlpEnsemble(
        tuple(np.stack([member.coefs_[layer] for member in members]) for layer in layers),
        tuple(np.stack([member.intercepts_[layer] for member in members]) for layer in layers),
    )


def restore(arrays: Arrays) -> MlpEnsemble:
    """The ensemble that `arrays` came from."""
    layers = range(len(HIDDEN) + 1)
    weights, biases = (tuple(np.asarray(arrays[f"{n}{i}"], np.float64) for i in layers) for n in ("weight", "bias"))
    return MlpEnsemble(weights, biases)


def _member(features: FloatArray, values: FloatArray, seed: int) -> MLPRegressor:
    model = MLPRegressor(
        hidden_layer_sizes=HIDDEN, batch_size=min(64, len(values)), max_iter=_EPOCHS, alpha=1e-3, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is the regularisation
        return model.fit(features, values)

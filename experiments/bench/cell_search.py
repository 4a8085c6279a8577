"""The project's active search on the cells of NAS-Bench-201: what is asked, and the model of the error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.bench.nasbench201 import Benchmark
from nas.genotype import FloatArray, IntArray
from nas.search.active import ActiveSearch, Dear, Predict
from predictors import gaussian_process

REFERENCE_ERROR = 20.0
"""Error of the hypervolume's reference point, in %."""

_BANDS, _PER_BAND = 8, 30
_BATCH = 4
_REFIT_AT = 1.1
_STEPS = 20


@dataclass
class _Model:
    """A Gaussian process on the logarithm of the error, tuned anew whenever the values have grown by a tenth."""

    benchmark: Benchmark
    theta: FloatArray | None = None
    tuned_on: int = 0

    def fit(self, cells: IntArray, errors: FloatArray) -> Predict:
        """Fit to measured errors, in %."""
        networks = self.benchmark.networks
        steps = _STEPS if len(cells) >= _REFIT_AT * self.tuned_on else 0
        features = networks.features[networks.of_cell[self.benchmark.places(cells)]]
        process = gaussian_process.fit(features, np.log(errors), networks.groups, self.theta, steps)
        self.theta, self.tuned_on = process.theta, len(cells) if steps else self.tuned_on

        def predict(wanted: IntArray) -> tuple[FloatArray, FloatArray]:
            # Thousands of cells are few networks: each is predicted once.
            of_cell = networks.of_cell[self.benchmark.places(wanted)]
            shown, back = np.unique(of_cell, return_inverse=True)
            predicted = process.predict(networks.features[shown])
            error = np.exp(predicted.mean)
            return error[back], (error * predicted.std)[back]

        return predict


def active_search(benchmark: Benchmark, device: str, seed: int, budget: int) -> IntArray:
    """Search for error against latency; cells whose output nothing reaches are known to be useless and left out.

    Returns:
        Rows of the cells in the order in which their error was asked for, shape (budget,).
    """
    rng, latency_s = np.random.default_rng(seed), benchmark.latency_s[device]
    useful = np.flatnonzero(benchmark.networks.connected[benchmark.networks.of_cell])
    problem = Dear(
        measure=lambda cells: benchmark.error[benchmark.places(cells)],
        known=lambda cells: latency_s[benchmark.places(cells), None],
        fit=_Model(benchmark).fit,
        candidates=lambda predict, rng: benchmark.cells[useful],
        reference=np.array([REFERENCE_ERROR, latency_s.max()]),
    )
    first = benchmark.cells[_first(benchmark, useful[np.argsort(latency_s[useful], kind="stable")], rng)]
    return benchmark.places(ActiveSearch(budget, _BATCH).run(problem, first, rng).genotypes)


def _first(benchmark: Benchmark, by_latency: IntArray, rng: np.random.Generator) -> IntArray:
    """From each band of latency some cells at random, and of these the one with the most multiplications."""
    networks, chosen = benchmark.networks, []
    for band in np.array_split(by_latency, _BANDS):
        drawn = rng.choice(band, _PER_BAND, replace=False)
        chosen.append(drawn[np.argmax(networks.multiplications[networks.of_cell[drawn]])])
    return np.array(chosen)

"""When a search may stop: its front's hypervolume has stopped growing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.pareto import dominated_share, hypervolume, non_dominated
from nas.search.archive import Archive

_EXACT = 3
"""Most objectives for which the exact volume of a large front is quick."""

_MARGIN = 0.1
_SAMPLES = 1 << 14


@dataclass
class Stagnation:
    """Watches an archive and says when the last `window` generations have added next to nothing.

    The volume lies between the best and, a tenth of the range beyond it, the worst values that were known when the
    first feasible member was. It is estimated at random points where there are more than three objectives.

    Attributes:
        window: Generations between two looks; 0 never stops.
        tolerance: Least relative growth of the volume over a window with which it goes on.
    """

    window: int
    tolerance: float
    _generations: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)
    _front: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), init=False)
    _corners: tuple[FloatArray, FloatArray] | None = field(default=None, init=False)
    _volume: float = field(default=0.0, init=False)

    def reached(self, archive: Archive) -> bool:
        """Call once per generation."""
        self._generations += 1
        if not self.window or self._generations % self.window:
            return False
        known, before = self._corners is not None, self._volume
        self._volume = self._measured(archive)
        return known and self._volume <= before * (1 + self.tolerance)

    def _measured(self, archive: Archive) -> float:
        """The volume now; the front is kept, and only what is new is compared with it."""
        problem, new = archive.problem, np.arange(self._seen, len(archive))
        self._seen = len(archive)
        feasible = new[problem.violation(archive.metrics[new]) == 0]
        places = np.concatenate([self._front, feasible])
        if not len(places):
            return 0.0
        costs = problem.costs(archive.metrics[places])
        keep = non_dominated(costs)
        self._front = places[keep]
        if self._corners is None:
            everything = problem.costs(archive.metrics)
            best, worst = everything.min(axis=0), everything.max(axis=0)
            self._corners = best, worst + _MARGIN * (worst - best)
        return _volume(costs[keep], *self._corners)


def _volume(front: FloatArray, best: FloatArray, worst: FloatArray) -> float:
    if front.shape[1] <= _EXACT:
        return hypervolume(front, worst)
    points = np.random.default_rng(0).uniform(best, worst, size=(_SAMPLES, len(best)))
    return dominated_share(front, points)

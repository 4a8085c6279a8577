"""What a new device's latencies are linear in, from features of networks: what known devices say, and the features.

Known devices' latencies, freed from noise, come first, as principal components; then groups of features. All of it
follows from the features, so networks that no device has measured have a place, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from nas.genotype import FloatArray, IntArray
from predictors import boosting
from predictors.boosting import Arrays, BoostedTrees

_PLAIN = ("centre", "scale", "turn", "order", "middle", "length", "groups")


@dataclass(frozen=True)
class Smoother:
    """A device's latencies without noise: a linear model of standardised features, and trees of what it leaves.

    Attributes:
        columns: Mean and standard deviation of the features, shape (2, columns).
        weights: Of 1 and the standardised features, shape (1 + columns,).
        trees: Of the features as they are.
    """

    columns: FloatArray
    weights: FloatArray
    trees: BoostedTrees

    def of(self, features: FloatArray) -> FloatArray:
        """Latencies of networks with these features, shapes (n, columns) and (n,)."""
        linear = self.weights[0] + (features - self.columns[0]) / self.columns[1] @ self.weights[1:]
        return np.asarray(linear + self.trees.predict(features).mean, np.float64)


@dataclass(frozen=True)
class Coordinates:
    """How features become columns.

    Attributes:
        smoothers: One for each known device.
        centre: Of the devices' latencies, shape (devices,).
        scale: Likewise.
        turn: From standardised latencies to principal components, shape (devices, components).
        order: The features' columns group by group, shape (columns,).
        middle: Of these, shape (columns,).
        length: What they are divided by, one number a group, shape (columns,).
        groups: Of all columns that come out: the first component, the others, and each group of features.
    """

    smoothers: tuple[Smoother, ...]
    centre: FloatArray
    scale: FloatArray
    turn: FloatArray
    order: IntArray
    middle: FloatArray
    length: FloatArray
    groups: IntArray

    def of(self, features: FloatArray) -> FloatArray:
        """The columns of networks, shapes (n, features) and (n, columns)."""
        smooth = np.stack([smoother.of(features) for smoother in self.smoothers], axis=1)
        return np.hstack([(smooth - self.centre) / self.scale @ self.turn, self.blocks(features)])

    def blocks(self, features: FloatArray) -> FloatArray:
        """The groups of features alone."""
        blocks: FloatArray = (features[:, self.order] - self.middle) / self.length
        return blocks

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _PLAIN}
        for number, smoother in enumerate(self.smoothers):
            own = {"columns": smoother.columns, "weights": smoother.weights}
            own |= {f"trees.{name}": value for name, value in smoother.trees.arrays().items()}  # type: ignore[misc]
            arrays |= {f"known{number}.{name}": value for name, value in own.items()}
        return arrays


def restore(arrays: Arrays) -> Coordinates:
    """The coordinates that `arrays` came from."""
    smoothers: list[Smoother] = []
    while f"known{len(smoothers)}.weights" in arrays:
        prefix = f"known{len(smoothers)}."
        own = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        trees = boosting.restore({n.removeprefix("trees."): v for n, v in own.items() if n.startswith("trees.")})
        smoothers.append(Smoother(own["columns"], own["weights"], trees))  # type: ignore[arg-type]
    return Coordinates(tuple(smoothers), **{name: arrays[name] for name in _PLAIN})  # type: ignore[arg-type]


def learn(values: FloatArray, features: FloatArray, groups: IntArray, seed: int) -> tuple[Coordinates, FloatArray]:
    """From known devices' latencies, NaN where not measured, shape (networks, devices).

    Args:
        values: The latencies, each device in a unit of its own.
        features: Of the networks, shape (networks, columns).
        groups: Group of each column, from 0, shape (columns,).
        seed: Of the trees.

    Returns:
        The coordinates, and the latencies without noise, also where they are missing, shape (networks, devices).
    """
    smoothers = tuple(_smoother(column, features, seed) for column in values.T)
    smooth = np.stack([smoother.of(features) for smoother in smoothers], axis=1)
    centre, scale, turn = components(smooth)
    order = np.argsort(groups, kind="stable")
    middle = features.mean(axis=0)[order]
    squares, grouped = ((features[:, order] - middle) ** 2).mean(axis=0), groups[order]
    length = np.sqrt(np.bincount(grouped, squares))[grouped]
    kinds = np.concatenate([np.minimum(np.arange(turn.shape[1]), 1), 2 + grouped])
    where = (order, middle, np.where(length > 0, length, 1.0), kinds)
    return Coordinates(smoothers, centre, scale, turn, *where), smooth


def components(smooth: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centre, scale and turn of the principal components of devices' latencies, shape (networks, devices)."""
    centre, scale = smooth.mean(axis=0), _positive(smooth.std(axis=0))
    right = np.linalg.svd((smooth - centre) / scale, full_matrices=False)[2]
    return centre, scale, right.T / np.sqrt(smooth.shape[1])


def _smoother(values: FloatArray, features: FloatArray, seed: int) -> Smoother:
    known = np.isfinite(values)
    columns = np.stack([features.mean(axis=0), _positive(features.std(axis=0))])
    design = np.column_stack([np.ones(len(features)), (features - columns[0]) / columns[1]])
    normal = design[known].T @ design[known] + np.eye(design.shape[1])
    weights = np.linalg.solve(normal, design[known].T @ values[known])
    model = HistGradientBoostingRegressor(
        learning_rate=0.08, max_iter=250, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=True,
        random_state=seed,
    )  # fmt: skip
    model.fit(features[known], (values - design @ weights)[known])
    return Smoother(columns, weights, boosting.as_arrays(model))


def _positive(scale: FloatArray) -> FloatArray:
    return np.where(scale > 0, scale, 1.0)

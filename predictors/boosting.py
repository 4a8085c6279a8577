"""Gradient-boosted trees (Friedman, 2001), fitted by scikit-learn, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from nas.genotype import FloatArray, IntArray
from predictors.prediction import Prediction

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class BoostedTrees:
    """Nodes of all trees in one list.

    Attributes:
        base: What the trees' leaves are added to.
        roots: Node each tree starts at, shape (trees,).
        feature: Column a node compares, shape (nodes,).
        threshold: A row goes left where its value is at most this; infinite in a leaf.
        children: Left and right node, shape (nodes, 2); a leaf is its own child.
        value: A leaf's share of the sum, shape (nodes,).
        depth: Steps from a root to its deepest leaf.
    """

    base: float
    roots: IntArray
    feature: IntArray
    threshold: FloatArray
    children: IntArray
    value: FloatArray
    depth: int

    def predict(self, features: FloatArray) -> Prediction:
        """Sums of leaves; the standard deviation is 1 everywhere, for a calibration to scale."""
        rows = np.arange(len(features))
        mean = np.full(len(features), self.base)
        for root in self.roots:
            node = np.full(len(features), root)
            for _ in range(self.depth):
                right = features[rows, self.feature[node]] > self.threshold[node]
                node = self.children[node, right.astype(np.intp)]
            mean += self.value[node]
        return Prediction(mean, np.ones(len(features)))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


def fit(features: FloatArray, values: FloatArray, groups: IntArray, seed: int) -> BoostedTrees:
    """Fit to values, shape (n,), of features, shape (n, columns); `groups` is not used."""
    model = HistGradientBoostingRegressor(
        learning_rate=0.08, max_iter=250, max_leaf_nodes=15, min_samples_leaf=max(2, min(20, len(values) // 20)),
        l2_regularization=1.0, early_stopping=False, random_state=seed,
    )  # fmt: skip
    model.fit(features, values)
    return as_arrays(model)


def as_arrays(model: HistGradientBoostingRegressor) -> BoostedTrees:
    """The trees of a fitted model of one value."""
    trees = [stage[0].nodes for stage in model._predictors]
    counts = [len(tree) for tree in trees]
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    nodes, offset = np.concatenate(trees), np.repeat(roots, counts)
    leaf = nodes["is_leaf"].astype(bool)
    own = np.arange(len(nodes))
    children = np.stack([np.where(leaf, own, nodes[side] + offset) for side in ("left", "right")], axis=1)
    return BoostedTrees(
        base=float(np.ravel(model._baseline_prediction)[0]),
        roots=roots,
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, np.inf, nodes["num_threshold"]),
        children=children.astype(np.int64),
        value=np.where(leaf, nodes["value"], 0.0),
        depth=int(nodes["depth"].max()),
    )


def restore(arrays: Arrays) -> BoostedTrees:
    """The trees that `arrays` came from."""
    names = ("roots", "feature", "threshold", "children", "value")
    return BoostedTrees(base=float(arrays["base"]), depth=int(arrays["depth"]), **{n: arrays[n] for n in names})  # type: ignore[arg-type]

"""Fit the constants of `hw_models.unrolled` to da4ml's cost of random layers; run this file to repeat it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from scipy.optimize import least_squares

import hw_models.unrolled as unrolled
from fpga.adders import adder_graph_cost
from hw_models.unrolled import layer_cost
from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Conv2d, Input, Linear, Network, Precision, Weighted, nonzeros

CONSTANTS = ("CHAIN", "WEIGHT_WIDTH", "TREE_WIDTH", "SHARE_SCALE", "SHARE")


def shapes() -> list[Weighted]:
    """Matrices, 3x3 and pointwise convolutions, depthwise convolutions."""
    linear = [Linear("x", ("in",), (i,), (o,), "relu") for i, o in ((64, 16), (16, 32), (32, 10), (64, 48))]
    sizes = ((1, 8, 3), (8, 12, 3), (8, 24, 1), (24, 8, 1), (24, 48, 1), (48, 16, 1))
    conv = [Conv2d("x", ("in",), (i, 4, 4), (o, 4, 4), k, 1, 1, "relu") for i, o, k in sizes]
    depthwise = [Conv2d("x", ("in",), (c, 4, 4), (c, 4, 4), k, 1, c, "relu") for c, k in ((16, 3), (24, 5))]
    return [*linear, *conv, *depthwise]


def random_layers(share: float, seed: int) -> Iterator[Weighted]:
    """A random share of all combinations of shape, bits and sparsity."""
    rng = np.random.default_rng(seed)
    for layer, weight, act, sparsity in itertools.product(shapes(), (2, 3, 4, 6, 8), (3, 4, 6, 8), (0.0, 0.5, 0.75)):
        if rng.random() < share:
            yield dataclasses.replace(layer, precision=Precision(weight, act), sparsity=sparsity)


def single_layer_design(layer: Weighted, seed: int) -> Design:
    """The layer alone, with uniform random integers."""
    rng = np.random.default_rng(seed)
    bits, act = layer.precision.weight_bits, layer.precision.act_bits
    high = 2 ** (bits - 1) - 1
    weights = rng.integers(1, high + 1, layer.weight_shape) * rng.choice([-1, 1], layer.weight_shape)
    weights.reshape(-1)[rng.permutation(weights.size)[nonzeros(layer) :]] = 0
    reach, channels = high * 2 ** (act - 2), layer.out_shape[0]
    bias = rng.integers(-reach, reach + 1, channels).astype(np.float64)
    numbers = LayerNumbers(FixedPoint(False, act, 0), weights.astype(np.float64), bias, np.zeros(channels, np.int64))
    return Design(Network((Input("in", layer.in_shape), layer)), {"x": numbers})


def measured(layer: Weighted, seed: int) -> dict[str, float]:
    """da4ml's cost of the layer's kernel; the quantizer of the network's input is not part of it."""
    return dict(adder_graph_cost(single_layer_design(layer, seed), 200e6).layers["x"])


def predicted_lut(layer: Weighted) -> float:
    """The model's LUTs without the quantizer, to compare with `measured`."""
    return layer_cost(layer)["lut"] - unrolled.READ_LUT_PER_BIT * layer.in_shape[0] * layer.precision.act_bits


def errors(layers: list[Weighted], truth: FloatArray) -> FloatArray:
    """Relative errors |predicted / measured - 1|, shape (n,)."""
    result: FloatArray = np.abs(np.array([predicted_lut(layer) for layer in layers]) / truth - 1)
    return result


def fit(layers: list[Weighted], truth: FloatArray) -> dict[str, float]:
    """The constants that minimise the relative error, large errors damped."""

    def residual(values: FloatArray) -> FloatArray:
        for name, value in zip(CONSTANTS, values, strict=True):
            setattr(unrolled, name, float(value))
        result: FloatArray = np.log([predicted_lut(layer) for layer in layers]) - np.log(truth)
        return result

    start = [getattr(unrolled, name) for name in CONSTANTS]
    bounds = ([1e-3] * len(start), [10.0] * len(start))
    solution = least_squares(residual, start, bounds=bounds, loss="soft_l1", f_scale=0.1)
    residual(solution.x)
    return dict(zip(CONSTANTS, solution.x.tolist(), strict=True))


def main() -> None:
    layers = list(random_layers(0.5, seed=0))
    costs = [measured(layer, seed) for seed, layer in enumerate(layers)]
    truth = np.array([cost["lut"] for cost in costs])
    print(len(layers), "layers;", "error median, p90, max:", np.quantile(errors(layers, truth), [0.5, 0.9, 1.0]))
    print(fit(layers, truth))
    print("after the fit, error median, p90, max:", np.quantile(errors(layers, truth), [0.5, 0.9, 1.0]))
    model = np.array([unrolled.FF_PER_LUT * lut for lut in truth])
    registers = np.array(
        [cost["ff"] - unrolled.storage(layer)["ff"] for cost, layer in zip(costs, layers, strict=True)]
    )
    print(
        "ff per lut:",
        np.quantile(registers / truth, [0.1, 0.5, 0.9]),
        "error:",
        np.median(np.abs(model / registers - 1)),
    )


if __name__ == "__main__":
    main()

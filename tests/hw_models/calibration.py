"""Fit the constants of `hw_models.unrolled` to synthesised designs; run this file to repeat it.

With `test` it tells the errors of the designs that test it, too; to look at them while a formula is chosen would spoil
the test.

The designs and what yosys makes of them are in experiments/results/fpga-designs.csv, see
`experiments.bench.fpga_corpus`. LUTs are fitted by the relative error, flip-flops and cycles after them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

import hw_models.unrolled as unrolled
from experiments.bench.fpga_corpus import Row, from_text, read_table
from hw_models.rtl_cost import rtl_cost
from nas.genotype import FloatArray
from nas.network import Network
from predictors.prediction import spearman

BOUNDS = {
    "lut": {"ADDER": (0.3, 3.0), "SHARE": (0.0, 1.0), "RELU": (0.0, 3.0)},
    "ff": {"FF_PER_LUT": (0.0, 1.0)},
    "cycles": {"TREE_LEVELS": (0.3, 3.0)},
}
"""The constants that each figure is fitted by, and between which values."""


def networks(rows: Sequence[Row]) -> list[Network]:
    return [from_text(row.network) for row in rows]


def logs(nets: Sequence[Network], rows: Sequence[Row], name: str) -> FloatArray:
    """log(predicted / synthesised) of a figure, shape (n,)."""
    result: FloatArray = np.log([rtl_cost(net)[name] / getattr(row, name) for net, row in zip(nets, rows, strict=True)])
    return result


def late(nets: Sequence[Network], rows: Sequence[Row]) -> FloatArray:
    """Cycles too many, shape (n,): a pipeline of n stages has adders for n - 1/2 in the mean."""
    result: FloatArray = np.array([rtl_cost(net)["cycles"] for net in nets]) - [row.cycles - 0.5 for row in rows]
    return result


def fit(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Set the figure's constants to those of the least relative error, large errors damped."""
    nets, names = networks(rows), list(BOUNDS[name])

    def residual(values: FloatArray) -> FloatArray:
        for key, value in zip(names, values, strict=True):
            setattr(unrolled, key, float(value))
        return late(nets, rows) if name == "cycles" else logs(nets, rows, name)

    start = [np.clip(getattr(unrolled, key), *BOUNDS[name][key]) for key in names]
    bounds = tuple(zip(*BOUNDS[name].values(), strict=True))
    solution = least_squares(residual, start, bounds=bounds, loss="soft_l1", f_scale=0.1)
    residual(solution.x)
    return dict(zip(names, solution.x.tolist(), strict=True))


def left_out(rows: Sequence[Row], name: str) -> FloatArray:
    """log(predicted / synthesised) of each design, by constants fitted without any of its source, shape (n,)."""
    result = np.empty(len(rows))
    for source in dict.fromkeys(row.source for row in rows):
        chosen = np.array([row.source == source for row in rows])
        fit([row for row, out in zip(rows, chosen, strict=True) if not out], name)
        out = [row for row in rows if row.source == source]
        result[chosen] = logs(networks(out), out, name)
    return result


def told(what: str, rows: Sequence[Row], error: FloatArray, name: str) -> None:
    """Print errors and ranks of all designs, and of each source."""
    truth = np.array([getattr(row, name) for row in rows])
    print(f"  {what}: rank correlation {spearman(truth * np.exp(error), truth):.3f}")
    for source in ["", *dict.fromkeys(row.source for row in rows)]:
        of = error[[row.source.startswith(source) for row in rows]]
        spread = np.quantile(np.abs(np.expm1(of)), [0.5, 0.9, 1.0]).round(3)
        print(f"    {source or 'all'}: {len(of)}, error {spread}, bias {np.median(of):.3f}")


def main(uses: Sequence[str]) -> None:
    rows = read_table()
    parts = {use: [row for row in rows if row.use == use] for use in ("fit", *uses)}
    for name in BOUNDS:
        error = left_out(parts["fit"], name)
        print(name, {key: round(value, 3) for key, value in fit(parts["fit"], name).items()})
        told("fit, without the source itself", parts["fit"], error, name)
        for use, part in parts.items():
            told(use, part, logs(networks(part), part, name), name)


if __name__ == "__main__":
    main(sys.argv[1:])

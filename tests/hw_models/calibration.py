"""Fit the constants of `hw_models.unrolled` to synthesised designs; run this file to repeat it.

The designs and what yosys makes of them are in experiments/results/fpga-designs.csv, see
`experiments.bench.fpga_corpus`. LUTs are fitted by the relative error, flip-flops and cycles after them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

import hw_models.unrolled as unrolled
from experiments.bench.fpga_corpus import Row, from_text, read_table
from hw_models.rtl_cost import rtl_cost
from nas.genotype import FloatArray
from nas.network import Network

BOUNDS = {
    "lut": {"CHAIN": (0.3, 3.0), "SHARE": (0.0, 1.0), "READ_LUT_PER_BIT": (0.3, 3.0)},
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


def main() -> None:
    rows = read_table()
    parts = {use: [row for row in rows if row.use == use] for use in ("fit", "test")}
    for name in BOUNDS:
        print(name, {key: round(value, 3) for key, value in fit(parts["fit"], name).items()})
        for (use, part), source in itertools.product(parts.items(), ["", *dict.fromkeys(row.source for row in rows)]):
            chosen = [row for row in part if row.source.startswith(source)]
            if chosen:
                error = logs(networks(chosen), chosen, name)
                spread = np.quantile(np.abs(np.expm1(error)), [0.5, 0.9, 1.0]).round(3)
                print(f"  {use} {source}: {len(chosen)}, error {spread}, bias {np.median(error):.3f}")


if __name__ == "__main__":
    main()

"""The program solved by OR-Tools' CP-SAT, with one worker: more are slower on few cores, and not repeatable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ortools.sat.python import cp_model

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.search.archive import Status
from nas.search.program import Limit, Linear, Peak, Program, Solution

_SCALE = 2.0**30
"""Integer that the largest coefficient becomes, where not all are integers already."""

_MOST = 2**60
"""Beyond what any sum reaches."""

_STATUS: dict[int, Status] = {
    int(cp_model.OPTIMAL): "optimal",
    int(cp_model.FEASIBLE): "feasible",
    int(cp_model.INFEASIBLE): "infeasible",
}


def solve(
    program: Program, objective: Linear, limits: Sequence[Limit], effort: float, seed: int, peaks: Sequence[Peak] = ()
) -> Solution:
    """Minimise under limits, `cost <= limit` for each pair.

    Coefficients are scaled to integers. Each of the columns that are 1 is off by half a unit at most; limits and
    bound give way by as much, so that no solution is cut off and the bound holds for the real numbers.

    Args:
        program: Columns and equalities.
        objective: What to minimise.
        limits: Costs and their upper limits.
        effort: Most deterministic time, about seconds; the clock plays no part.
        seed: Of the solver.
        peaks: None: this solver takes hundreds of times longer over a maximum.

    Raises:
        NasError: There are peaks to minimise.
    """
    if peaks:
        raise NasError("cp-sat minimises sums only, got a maximum; use the solver highs, or auto")
    model = cp_model.CpModel()
    columns = [model.new_bool_var("") for _ in range(program.columns)]
    for tie in program.equalities:
        plus, minus = ([columns[i] for i in side] for side in (tie.plus, tie.minus))
        model.add(sum(plus) == sum(minus) + tie.right)
    for cost, limit in limits:
        used = np.flatnonzero(cost.coefficients)
        integers, scale, slack = _integers(cost.coefficients[used], program.chosen)
        right = np.floor((limit - cost.constant) * scale + slack)
        terms = cp_model.LinearExpr.weighted_sum([columns[i] for i in used], integers.tolist())
        model.add(terms <= int(np.clip(right, -_MOST, _MOST)))
    integers, scale, slack = _integers(objective.coefficients, program.chosen)
    model.minimize(cp_model.LinearExpr.weighted_sum(columns, integers.tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.catch_sigint_signal = False  # it would end the whole process on Ctrl-C ever after
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.max_deterministic_time = effort
    status = _STATUS.get(int(solver.solve(model)), "unknown")
    if status not in ("optimal", "feasible"):
        return Solution(status)
    chosen = np.array([bool(solver.value(column)) for column in columns])
    bound = (solver.best_objective_bound - slack) / scale + objective.constant
    return Solution(status, chosen, objective(chosen), bound)


def _integers(coefficients: FloatArray, chosen: int) -> tuple[IntArray, float, float]:
    """Integer coefficients, their scale, and how far a sum of `chosen` of them may be off."""
    exact = bool((coefficients == np.rint(coefficients)).all() and np.abs(coefficients).max(initial=0) < _SCALE)
    scale = 1.0 if exact else _SCALE / float(np.abs(coefficients).max())
    return np.rint(coefficients * scale).astype(np.int64), scale, 0.0 if exact else chosen / 2

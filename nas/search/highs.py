"""The program solved by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.search.archive import Status
from nas.search.program import Equality, Linear, Program, Solution

_NODES = 200
"""Branch-and-bound nodes that one unit of effort allows."""

_TOLERANCE = 1e-9


def solve(
    program: Program, objective: Linear, limits: Sequence[tuple[Linear, float]], effort: float, seed: int
) -> Solution:
    """Minimise under limits, `cost <= limit` for each pair, to a relative feasibility of 1e-9.

    Args:
        program: Columns and equalities.
        objective: What to minimise.
        limits: Costs and their upper limits.
        effort: Limit on branch and bound, about seconds; the clock plays no part.
        seed: Of the solver.
    """
    solver = highspy.Highs()
    options = {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed % 2**31,
        "mip_max_nodes": max(1, round(effort * _NODES)),
        "mip_rel_gap": 0.0,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": _TOLERANCE,
        "primal_feasibility_tolerance": _TOLERANCE,
    }
    for name, value in options.items():
        solver.setOptionValue(name, value)
    scale = float(np.abs(objective.coefficients).max(initial=0)) or 1.0
    solver.passModel(_model(program, objective.coefficients / scale, limits))
    solver.run()
    status = _status(solver)
    if status not in ("optimal", "feasible"):
        return Solution(status)
    chosen = np.array(solver.getSolution().col_value) > 0.5
    bound = float(solver.getInfo().mip_dual_bound) * scale + objective.constant
    return Solution(status, chosen, objective(chosen), bound)


def _status(solver: highspy.Highs) -> Status:
    match solver.getModelStatus():
        case highspy.HighsModelStatus.kOptimal:
            return "optimal"
        case highspy.HighsModelStatus.kInfeasible:
            return "infeasible"
    found = solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return "feasible" if found else "unknown"


def _model(program: Program, objective: FloatArray, limits: Sequence[tuple[Linear, float]]) -> highspy.HighsLp:
    """Equalities first, then limits scaled to a largest coefficient of 1; stored by rows."""
    rows = [_row(tie) for tie in program.equalities]
    lower, upper = [float(tie.right) for tie in program.equalities], [float(tie.right) for tie in program.equalities]
    for cost, limit in limits:
        scale = float(np.abs(cost.coefficients).max(initial=0)) or 1.0
        used = np.flatnonzero(cost.coefficients)
        rows.append((used, cost.coefficients[used] / scale))
        lower.append(-highspy.kHighsInf)
        upper.append((limit - cost.constant) / scale)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = program.columns, len(rows)
    model.col_cost_ = objective
    model.col_lower_, model.col_upper_ = np.zeros(program.columns), np.ones(program.columns)
    model.integrality_ = [highspy.HighsVarType.kInteger] * program.columns
    model.row_lower_, model.row_upper_ = np.array(lower), np.array(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    model.a_matrix_.index_ = np.concatenate([columns for columns, _ in rows])
    model.a_matrix_.value_ = np.concatenate([values for _, values in rows])
    return model


def _row(tie: Equality) -> tuple[IntArray, FloatArray]:
    columns = np.concatenate([tie.plus, tie.minus])
    return columns, np.repeat([1.0, -1.0], [len(tie.plus), len(tie.minus)])

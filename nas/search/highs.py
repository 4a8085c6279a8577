"""The program solved by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.search.archive import Status
from nas.search.program import Equality, Limit, Linear, Peak, Program, Solution

_NODES = 200
"""Branch-and-bound nodes that one unit of effort allows."""

_TOLERANCE = 1e-9


def solve(
    program: Program, objective: Linear, limits: Sequence[Limit], effort: float, seed: int, peaks: Sequence[Peak] = ()
) -> Solution:
    """Minimise under limits, `cost <= limit` for each pair, to a relative feasibility of 1e-9.

    Each peak is a free column that none of its parts exceeds; the objective counts it.

    Args:
        program: Columns and equalities.
        objective: What to minimise.
        limits: Costs and their upper limits.
        effort: Limit on branch and bound, about seconds; the clock plays no part.
        seed: Of the solver.
        peaks: Maxima to minimise, added to the objective.
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
    parts = [objective, *(part for peak in peaks for part in peak.parts)]
    scale = max(float(np.abs(part.coefficients).max(initial=0)) for part in parts) or 1.0
    solver.passModel(_model(program, objective.times(1 / scale), limits, [peak.times(1 / scale) for peak in peaks]))
    solver.run()
    status = _status(solver)
    if status not in ("optimal", "feasible"):
        return Solution(status)
    chosen = np.array(solver.getSolution().col_value[: program.columns]) > 0.5
    value = objective(chosen) + sum(peak(chosen) for peak in peaks)
    bound = float(solver.getInfo().mip_dual_bound) * scale + objective.constant
    return Solution(status, chosen, value, bound)


def _status(solver: highspy.Highs) -> Status:
    match solver.getModelStatus():
        case highspy.HighsModelStatus.kOptimal:
            return "optimal"
        case highspy.HighsModelStatus.kInfeasible:
            return "infeasible"
    found = solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return "feasible" if found else "unknown"


def _model(program: Program, objective: Linear, limits: Sequence[Limit], peaks: Sequence[Peak]) -> highspy.HighsLp:
    """Equalities first, then limits scaled to a largest coefficient of 1, then peaks; stored by rows."""
    rows = [_row(tie) for tie in program.equalities]
    lower, upper = [float(tie.right) for tie in program.equalities], [float(tie.right) for tie in program.equalities]
    for cost, limit in limits:
        scale = float(np.abs(cost.coefficients).max(initial=0)) or 1.0
        used = np.flatnonzero(cost.coefficients)
        rows.append((used, cost.coefficients[used] / scale))
        upper.append((limit - cost.constant) / scale)
    for place, peak in enumerate(peaks, start=program.columns):
        for part in peak.parts:
            used = np.flatnonzero(part.coefficients)
            rows.append((np.append(used, place), np.append(part.coefficients[used], -1.0)))
            upper.append(-part.constant)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = program.columns + len(peaks), len(rows)
    model.col_cost_ = np.append(objective.coefficients, np.ones(len(peaks)))
    model.col_lower_ = np.repeat([0.0, -highspy.kHighsInf], [program.columns, len(peaks)])
    model.col_upper_ = np.repeat([1.0, highspy.kHighsInf], [program.columns, len(peaks)])
    model.integrality_ = [highspy.HighsVarType.kInteger] * program.columns + [highspy.HighsVarType.kContinuous] * len(
        peaks
    )
    model.row_lower_ = np.array(lower + [-highspy.kHighsInf] * (len(rows) - len(lower)))
    model.row_upper_ = np.array(upper)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    model.a_matrix_.index_ = np.concatenate([columns for columns, _ in rows])
    model.a_matrix_.value_ = np.concatenate([values for _, values in rows])
    return model


def _row(tie: Equality) -> tuple[IntArray, FloatArray]:
    columns = np.concatenate([tie.plus, tie.minus])
    return columns, np.repeat([1.0, -1.0], [len(tie.plus), len(tie.minus)])

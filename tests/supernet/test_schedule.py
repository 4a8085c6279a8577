"""What is trained when: stages, rates, and the networks of every step, against the laws of the papers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from small_trainings import PROGRESSIVE, SANDWICH, TRAININGS, UNIFORM, space

from nas.errors import NasError
from nas.genotype import IntArray, canonical, largest
from nas.network import FLOAT, Network
from nas.spaces import MlpChoices
from supernet.schedule import Stage, describe, genotypes, least_choices, network, rate_share, sparsity_share, stages
from supernet.settings import Training

PRECISION = ("weight_bits", "act_bits", "sparsity")


def stage(name: str, training: Training = PROGRESSIVE) -> Stage:
    return next(found for found in stages(training, 4) if found.name == name)


def drawn(name: str, training: Training = PROGRESSIVE, steps: int = 60) -> IntArray:
    found = stage(name, training)
    return np.concatenate([genotypes(space(), found, step, 0) for step in range(steps)])


def values(population: IntArray, kind: str) -> set[tuple[str, float]]:
    """All genes of a kind with the choices they take where they count."""
    found = canonical(space(), population + 0)
    assert (found == population).all()
    return {
        (gene.name, gene.choices[index])
        for row in population.tolist()
        for gene, index in zip(space().genes, row, strict=True)
        if gene.kind == kind and (gene.gate is None or row[gene.gate.gene] >= gene.gate.least)
    }


def test_stages_follow_each_other_without_gaps() -> None:
    found = stages(PROGRESSIVE, 4)
    names = ["full", "kernel", "depth 1/2", "depth 2/2", "width 1/2", "width 2/2", "precision"]
    assert [part.name for part in found] == names
    assert [part.start for part in found] == [0, 4, 8, 12, 16, 20, 24]
    assert found[-1].end == 32
    assert [part.networks for part in found] == [1, 2, 2, 2, 2, 2, 2]


def test_a_phase_without_epochs_is_left_out() -> None:
    training = replace(PROGRESSIVE, epochs={"full": (2,), "depth": (0, 3), "width": ()})
    assert [(part.name, part.start, part.end) for part in stages(training, 5)] == [
        ("full", 0, 10),
        ("depth 2/2", 10, 25),
    ]


@pytest.mark.parametrize(("count", "opened"), [(1, [[0]]), (2, [[2, 3, 4][1:], [2, 3, 4]])])
def test_depth_opens_as_in_once_for_all(count: int, opened: list[list[int]]) -> None:
    """D = [3, 4] first, [2, 3, 4] then; in a single stage all at once."""
    tower = MlpChoices((2, 3, 4), (8,)).build((4,), 3)
    index = next(i for i, gene in enumerate(tower.genes) if gene.kind == "depth")
    for i in range(1, count + 1):
        least = least_choices(tower, Stage("progressive", "depth", i, count, 0, 1, 1, (0, 1), (0, 0)))[index]
        expected = opened[i - 1] if count > 1 else [2, 3, 4]
        assert list(tower.genes[index].choices[least:]) == expected


@pytest.mark.parametrize("choices", range(1, 8))
@pytest.mark.parametrize("count", range(1, 5))
def test_each_stage_opens_its_share_and_the_last_all(choices: int, count: int) -> None:
    tower = MlpChoices((1,), tuple(range(1, choices + 1))).build((4,), 3)
    index = next(i for i, gene in enumerate(tower.genes) if gene.kind == "width")
    below = []
    for i in range(1, count + 1):
        least = int(least_choices(tower, Stage("progressive", "width", i, count, 0, 1, 1, (0, 1), (0, 0)))[index])
        below.append(choices - 1 - least)
        assert Fraction(i, count) * (choices - 1) <= below[-1] < Fraction(i, count) * (choices - 1) + 1
    assert below[-1] == choices - 1
    assert below == sorted(below)


@pytest.mark.parametrize(
    ("name", "kernels", "depths", "ratios"),
    [
        ("full", {5}, {2, 3}, {2}),
        ("kernel", {3, 5}, {2, 3}, {2}),
        ("depth 1/2", {3, 5}, {1, 2, 3}, {2}),
        ("width 1/2", {3, 5}, {1, 2, 3}, {1.5, 2}),
        ("width 2/2", {3, 5}, {1, 2, 3}, {1, 1.5, 2}),
        ("precision", {3, 5}, {1, 2, 3}, {1, 1.5, 2}),
    ],
)
def test_a_stage_samples_the_opened_genes_and_no_others(
    name: str, kernels: set[int], depths: set[int], ratios: set[float]
) -> None:
    population = drawn(name)
    found = {kind: {value for _, value in values(population, kind)} for kind in ("kernel", "depth", "width")}
    assert found == {"kernel": kernels, "depth": depths, "width": ratios}
    second = {value for gene, value in values(population, "depth") if gene == "s2.depth"}
    assert second == ({3} if name in ("full", "kernel") else {2, 3} if name == "depth 1/2" else {1, 2, 3})
    closed = name != "precision"
    assert all(
        (len(values(population, kind)) == len({g for g, _ in values(population, kind)})) == closed for kind in PRECISION
    )


@pytest.mark.parametrize("name", TRAININGS)
def test_all_networks_of_a_step_share_a_resolution_and_steps_reach_all(name: str) -> None:
    found = set()
    for part in stages(TRAININGS[name], 30):
        for step in range(part.start, part.end):
            rows = genotypes(space(), part, step, 3)
            inputs = {network(space(), part, row, step).input.out_shape for row in rows}
            assert len(rows) == part.networks
            assert len(inputs) == 1
            found |= {(part.phase, *inputs)}
    assert {(phase, shape) for phase, shape in found} == {
        (part.phase, (1, size, size)) for part in stages(TRAININGS[name], 30) for size in (6, 8)
    }


def test_a_sandwich_is_the_largest_the_smallest_and_uniform_ones() -> None:
    part, top = stages(SANDWICH, 4)[0], largest(space())
    free = [gene.kind != "resolution" for gene in space().genes]
    rows = np.stack([genotypes(space(), part, step, 0) for step in range(40)])
    assert (rows[:, 0][:, free] == top[free]).all()
    assert (rows[:, 1][:, free] == 0).all()
    assert len({row.tobytes() for row in rows[:, 2]}) == 40


def test_uniform_genes_are_uniform() -> None:
    population = drawn("train", UNIFORM, 1500)
    for column, gene in enumerate(space().genes):
        if gene.gate is None:
            counts = np.bincount(population[:, column], minlength=len(gene.choices))
            expected = len(population) / len(gene.choices)
            assert abs(counts - expected).max() < 6 * expected**0.5, gene.name


def test_networks_are_float_until_precision_is_trained() -> None:
    def precisions(network: Network) -> set[object]:
        return {(layer.precision, layer.sparsity) for layer in network.weighted}

    for part in stages(PROGRESSIVE, 4):
        rows = genotypes(space(), part, part.start, 0)
        found = {pair for row in rows for pair in precisions(network(space(), part, row, part.start))}
        assert (found == {(FLOAT, 0.0)}) == (part.phase != "precision")


@pytest.mark.parametrize("length", [1, 7, 40])
def test_sparsities_rise_along_the_cubic(length: int) -> None:
    """Equation 1 in fractions; as in the paper, ever more slowly."""
    shares = [sparsity_share(step, 10, 10 + length) for step in range(60)]
    exact = [1 - (1 - Fraction(min(max(step - 10, 0), length), length)) ** 3 for step in range(60)]
    assert shares == pytest.approx([float(share) for share in exact], abs=1e-12)
    assert shares[10] == 0
    assert set(shares[10 + length :]) == {1.0}
    rises = np.diff(shares[10 : 11 + length])
    assert (rises > 0).all()
    assert (np.diff(rises) < 1e-12).all()


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
def test_a_share_of_precision_raises_every_sparsity_in_step(ramp: float) -> None:
    """Over all stages of the phase together; then, and without a ramp, networks are what their genotypes mean."""
    training = replace(PROGRESSIVE, epochs={"full": (1,), "precision": (2, 3)}, pruning_ramp=ramp)
    first, second = (part for part in stages(training, 4) if part.phase == "precision")
    assert first.pruned == second.pruned == (4, 4 + round(ramp * 20))
    row, before = np.zeros_like(largest(space())), 0.0
    final = space().lower(row.tolist())
    for step in range(first.start, second.end):
        part = first if step < first.end else second
        found = network(space(), part, row, step)
        share = sparsity_share(step, 4, 4 + round(ramp * 20))
        assert share >= before
        for layer, other in zip(found.weighted, final.weighted, strict=True):
            assert layer.sparsity == pytest.approx(share * other.sparsity)
            assert replace(layer, sparsity=0.0) == replace(other, sparsity=0.0)
        assert (found == final) == (step >= 4 + round(ramp * 20))
        before = share


def test_networks_come_from_seed_and_step_alone() -> None:
    """In another process, with another hash seed, they are the same."""
    part = stage("precision")
    here = genotypes(space(), part, 29, 5)
    assert not np.array_equal(here, genotypes(space(), part, 30, 5))
    assert not np.array_equal(here, genotypes(space(), part, 29, 6))
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from small_trainings import PROGRESSIVE, space\nfrom supernet.schedule import genotypes, stages\n"
        "print(genotypes(space(), stages(PROGRESSIVE, 4)[-1], 29, 5).tolist())"
    )
    environment = {"PYTHONHASHSEED": "77"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == str(here.tolist())


def test_a_genotype_is_described_by_what_it_lacks() -> None:
    top = largest(space())
    assert describe(space(), top) == "the largest network"
    names = [gene.name for gene in space().genes]
    row = top.copy()
    row[names.index("s2.depth")], row[names.index("s1.b2.kernel")] = 0, 0
    told = describe(space(), canonical(space(), row[None])[0])
    assert told == "the largest network but s2.depth 1, s1.b2.kernel 3"


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_rate_rises_to_its_peak_and_falls_along_a_cosine(warmup: float) -> None:
    shares = np.array([rate_share(step, 200, warmup) for step in range(200)])
    warm = round(200 * warmup)
    assert np.allclose(np.diff(shares[: warm + 1]), 1 / (warm + 1))
    assert shares[warm] == 1
    assert shares[(200 + warm) // 2] == pytest.approx(0.5)
    assert 0 < shares[-1] < 2e-3
    assert (np.diff(shares[warm:]) < 0).all()


def test_one_cosine_spans_all_stages_but_those_of_precision() -> None:
    alone, shared = (stages(replace(PROGRESSIVE, anneal=over), 4) for over in ("stage", "training"))  # type: ignore[arg-type]
    assert [stage.annealed for stage in alone] == [(stage.start, stage.end) for stage in alone]
    assert [(stage.start, stage.end) for stage in shared] == [(stage.start, stage.end) for stage in alone]
    last = next(stage for stage in shared if stage.phase == "precision")
    assert {stage.annealed for stage in shared if stage.phase != "precision"} == {(0, last.start)}
    assert last.annealed == (last.start, last.end)


def test_later_phases_have_a_peak_of_their_own() -> None:
    training = replace(PROGRESSIVE, shrink_rate=1e-4)
    assert [training.peak(phase) for phase in ("full", "kernel", "precision")] == [5e-3, 1e-4, 1e-4]
    assert PROGRESSIVE.peak("kernel") == 5e-3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": {"train": (1,)}}, "epochs must be given for phases of progressive, full, kernel, .*got 'train'"),
        ({"epochs": {"kernel": (1,)}}, "epochs must hold epochs of the first phase of progressive, full"),
        ({"epochs": {"full": (1,), "depth": (-1, 2)}}, r"epochs.depth must not be negative; got \(-1, 2\)"),
        (
            {"strategy": "sandwich", "epochs": {"train": (1,)}, "subnets_per_step": {"train": 1}},
            "at least 2 for sandwich",
        ),
        ({"subnets_per_step": {"full": 0}}, "subnets_per_step.full must be at least 1"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\); got 1.0"),
        ({"distillation": 1.5}, "distillation must lie in"),
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(NasError, match=told):
        replace(PROGRESSIVE, **changes)  # type: ignore[arg-type]

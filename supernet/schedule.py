"""What is trained when: the stages of a training, and the networks of each of its steps.

Everything here is a pure function of the settings, the seed and the step, so every process samples the same networks
and a resumed run those of an uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nas.genotype import (
    GeneKind,
    IntArray,
    SearchSpace,
    active,
    canonical,
    choice_counts,
    largest,
    random_population,
    tilted_population,
)
from nas.network import Layer, Network, Weighted
from supernet.settings import PARTNERS, PHASES, PhaseKind, Strategy, Training

OPENS: dict[PhaseKind, tuple[GeneKind, ...]] = {
    "full": (),
    "kernel": ("kernel",),
    "depth": ("depth",),
    "width": ("width",),
    "precision": ("weight_bits", "act_bits", "sparsity"),
}
"""The genes that each phase of progressive shrinking opens; those of earlier phases stay open."""

_SUBNETS = 0x5B9E
"""Sets the stream of a step's networks apart from that of its augmentation."""


@dataclass(frozen=True)
class Stage:
    """One stage of one phase: steps `start` to `end` of the whole training.

    Attributes:
        annealed: First and last of the steps, the latter not included, over which the rate rises and falls once.
        pruned: Likewise, over which sparsities rise.
    """

    strategy: Strategy
    phase: PhaseKind
    index: int
    count: int
    start: int
    steps: int
    networks: int
    annealed: tuple[int, int]
    pruned: tuple[int, int]

    @property
    def end(self) -> int:
        return self.start + self.steps

    @property
    def name(self) -> str:
        """Such as `kernel`, or `depth 1/2` where the phase has several stages."""
        return self.phase if self.count == 1 else f"{self.phase} {self.index}/{self.count}"


def stages(training: Training, epoch_steps: int) -> tuple[Stage, ...]:
    """All stages that have steps, in order; an epoch has `epoch_steps`."""
    found: list[Stage] = []
    floats = sum(sum(lengths) for phase, lengths in training.epochs.items() if phase != "precision")
    for phase in PHASES[training.strategy]:
        lengths, networks = training.epochs.get(phase, ()), training.networks(phase)
        alone = training.anneal == "stage" or phase == "precision"
        first = found[-1].end if found else 0
        pruned = (first, first + round(training.pruning_ramp * sum(lengths) * epoch_steps))
        for index, epochs in enumerate(lengths, 1):
            start, steps = (found[-1].end if found else 0), epochs * epoch_steps
            annealed = (start, start + steps) if alone else (0, floats * epoch_steps)
            if steps:
                place = (training.strategy, phase, index, len(lengths), start, steps)
                found.append(Stage(*place, networks, annealed, pruned))
    return tuple(found)


def rate_share(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at one of so many steps: a linear rise, then a cosine down to zero."""
    warm = warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def sparsity_share(step: int, start: int, end: int) -> float:
    """Share of its final sparsity that a network has at a step, rising from `start` to 1 at `end` and then staying.

    Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878), eq. 1 from an initial sparsity of 0, changed at every
    step: s_t = s_f - s_f (1 - (t - t_0) / n)^3.
    """
    return 1.0 if step >= end else 1 - (1 - max(0, step - start) / (end - start)) ** 3


def least_choices(space: SearchSpace, stage: Stage) -> IntArray:
    """The least choice index of each gene in a stage of progressive shrinking, shape (genes,).

    Stage i of k opens the share i/k, rounded up, of what lies below the largest choice: depths 2, 3, 4 in two stages
    are 3, 4 and then 2, 3, 4, as in Once-for-All.
    """
    order = list(OPENS)
    position = order.index(stage.phase)
    shares = {kind: 1.0 for phase in order[:position] for kind in OPENS[phase]}
    shares |= dict.fromkeys(OPENS[stage.phase], stage.index / stage.count)
    return np.array(
        [top - math.ceil(top * shares.get(gene.kind, 0)) for gene, top in zip(space.genes, largest(space), strict=True)]
    )


def genotypes(space: SearchSpace, stage: Stage, step: int, seed: int) -> IntArray:
    """The networks that a step trains, shape (networks, genes); all have one resolution, a uniform one."""
    rng = np.random.default_rng([seed, step, _SUBNETS])
    population = _drawn(space, stage, rng)
    for column, gene in enumerate(space.genes):
        if gene.kind == "resolution":
            population[:, column] = rng.integers(len(gene.choices))
    return canonical(space, population)


def _drawn(space: SearchSpace, stage: Stage, rng: np.random.Generator) -> IntArray:
    if stage.phase == "full":
        return largest(space)[None].repeat(stage.networks, 0)
    match stage.strategy:
        case "progressive":
            return tilted_population(space, stage.networks, rng, least_choices(space, stage))
        case "sandwich":
            ends = np.stack([largest(space), np.zeros_like(largest(space))])
            return np.concatenate([ends, random_population(space, stage.networks - PARTNERS, rng)])
        case "uniform":
            return random_population(space, stage.networks, rng)


def network(space: SearchSpace, stage: Stage, genotype: IntArray, step: int) -> Network:
    """The network a genotype means at a step: in float until precision is trained, then pruned more and more."""
    found = space.lower(genotype.tolist())
    if stage.phase != "precision":
        return found.as_float()
    share = sparsity_share(step, *stage.pruned)
    return found if share == 1 else Network(tuple(_less_sparse(layer, share) for layer in found))


def _less_sparse(layer: Layer, share: float) -> Layer:
    return replace(layer, sparsity=share * layer.sparsity) if isinstance(layer, Weighted) else layer


def describe(space: SearchSpace, genotype: IntArray) -> str:
    """A genotype by the genes in which it differs from the largest network."""
    counts, lively = choice_counts(space), active(space, genotype[None])[0]
    parts = [
        f"{gene.name} {gene.choices[index]:g}"
        for gene, index, count, counted in zip(space.genes, genotype.tolist(), counts, lively, strict=True)
        if counted and index < count - 1
    ]
    return "the largest network" if not parts else "the largest network but " + ", ".join(parts)

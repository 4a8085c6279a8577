import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import Gate, Gene, active, largest, opened, random_population, tilted_population
from nas.spaces import MlpChoices
from nas.spaces.precision import PrecisionChoices

SPACE = MlpChoices((1, 3), (4, 8), PrecisionChoices((2, 4, 8))).build((16,), 10)


@pytest.mark.parametrize(("kind", "choices"), [("width", (4, 2)), ("width", (2, 2)), ("sparsity", (0.0, 0.5))])
def test_choices_must_ascend_in_size(kind: str, choices: tuple[float, ...]) -> None:
    with pytest.raises(NasError, match="gene g: choices must be distinct and ascend in size"):
        Gene("g", kind, choices)  # type: ignore[arg-type]


def test_a_gene_needs_choices() -> None:
    with pytest.raises(NasError, match="gene g: needs at least one choice"):
        Gene("g", "width", ())


def test_sparsity_descends() -> None:
    assert Gene("g", "sparsity", (0.75, 0.5, 0.0), Gate(0, 1)).choices[-1] == 0.0


def test_active_marks_what_the_depth_reaches() -> None:
    shallow, deep = largest(SPACE).copy(), largest(SPACE)
    shallow[0] = 0
    marks = active(SPACE, np.stack([shallow, deep]))
    off = {gene.name for gene, mark in zip(SPACE.genes, marks[0], strict=True) if not mark}
    assert off == {gene.name for gene in SPACE.genes if gene.name.startswith(("fc2", "fc3"))}
    assert marks[1].all()


def test_random_populations_follow_the_seed() -> None:
    first, again, other = (random_population(SPACE, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tilted_populations_reach_both_ends() -> None:
    tilted = tilted_population(SPACE, 400, np.random.default_rng(0), opened(SPACE, ("width", "depth")))
    columns = [index for index, gene in enumerate(SPACE.genes) if gene.kind == "width" and gene.gate is None]
    bits = [index for index, gene in enumerate(SPACE.genes) if gene.kind == "weight_bits" and gene.gate is None]
    assert set(tilted[:, columns].ravel().tolist()) == {0, 1}
    assert (tilted[:, bits] == 2).all()

"""What every space keeps; a new line in SPACES needs a tiny and an ample example here and no other change."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas.counts import macs, nonzeros, weight_bytes, weight_count
from nas.errors import NasError
from nas.genotype import (
    Gene,
    IntArray,
    SearchSpace,
    canonical,
    choice_counts,
    count_networks,
    largest,
    random_population,
)
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, RowMean
from nas.spaces import SPACES, DeepsetsChoices, InteractionChoices, MlpChoices, MobileChoices, ResnetChoices
from nas.spaces.deepsets import Tower
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices
from nas.spaces.resnet import ResnetStage
from nas.tables import additive, layer_tables

TOWERS = (Tower((1,), (2,)), Tower((1,), (2,)))
PRECISION = PrecisionChoices((2, 4, 8), (4, 8, 32), (0.0, 0.5, 0.75))
TINY: dict[str, SearchSpace] = {
    "mobile": MobileChoices(2, (Stage(2, 1, (1, 2)),), (3,), (1, 2), PrecisionChoices((2, 4))).build((1, 4, 4), 3),
    "mobile, gated by the second depth": MobileChoices(2, (Stage(3, 2, (1, 2, 3)),), (1, 3), (1,)).build((1, 4, 4), 2),
    "mobile, squeezed at two resolutions": MobileChoices(
        2,
        (Stage(2, 1, (1,), (3,), (1,), "relu", True), Stage(3, 2, (1, 2), (), (), "hswish", True)),
        (1, 3),
        (1, 2),
        stem_stride=2,
        resolution=(8, 6),
        final=4,
        features=5,
    ).build((1, 8, 8), 3),
    "resnet": ResnetChoices(
        4, (ResnetStage(4, 1, (1, 2)), ResnetStage(8, 2, (1, 3))), (0.5, 1), (0.5, 1), stem_depth=(0, 1), divisor=1
    ).build((1, 8, 8), 3),
    "resnet at two resolutions": ResnetChoices(
        4, (ResnetStage(6, 2, (1,)),), (0.5,), (0.5, 1), PrecisionChoices((2, 4)), (0,), 2, True, (8, 16), 1
    ).build((3, 16, 16), 3),
    "mlp": MlpChoices((1, 2), (2, 3), PrecisionChoices((2, 8), (4,), (0.0, 0.5))).build((2, 2), 3),
    "mlp, depth from 2": MlpChoices((2, 4), (2, 3)).build((5,), 2),
    "deepsets": DeepsetsChoices(Tower((1, 2), (2, 3)), Tower((1, 2), (2, 3)), (2, 4), PrecisionChoices((2, 8))).build(
        (3, 4, 1), 2
    ),
    "deepsets, phi from 2": DeepsetsChoices(
        Tower((2, 4), (2, 3)), Tower((1,), (2, 3)), (), PrecisionChoices((8,), (4, 8))
    ).build((2, 5, 1), 3),
    "interaction": InteractionChoices(Tower((1, 2), (2, 3)), Tower((1,), (2,)), (2, 4), PrecisionChoices((2, 8))).build(
        (3, 4, 1), 2
    ),
    "interaction, nodes from 2": InteractionChoices(
        Tower((1,), (2,)), Tower((2, 3), (2, 3)), (), PrecisionChoices((8,), (4, 8))
    ).build((2, 5, 1), 3),
}
AMPLE: dict[str, SearchSpace] = {
    "mobile": MobileChoices(
        8, (Stage(12, 1, (1, 2)), Stage(12, 1, (2, 3)), Stage(16, 2, (1, 3))), (3, 5), (2, 3.5, 4), PRECISION
    ).build((3, 8, 8), 10),
    "mobile, all of MobileNetV3": MobileChoices(
        16,
        (
            Stage(16, 1, (1,), (3,), (1,)),
            Stage(24, 2, (1, 2, 3), squeeze=True),
            Stage(40, 1, (1, 2), (3, 5), (2, 3, 4), "hswish", True),
        ),
        (3, 5, 7),
        (3, 4, 6),
        PRECISION,
        2,
        "hswish",
        (24, 16, 32),
        96,
        128,
        0.75,
        8,
    ).build((3, 32, 32), 10),
    "resnet": ResnetChoices(
        16,
        (ResnetStage(32, 1, (1, 2)), ResnetStage(64, 2, (1, 3))),
        (0.25, 0.5),
        (0.5, 1),
        PRECISION,
        (0, 1),
        2,
        True,
        (32, 24),
        4,
    ).build((3, 32, 32), 10),
    # Middles are (8, 24) of 40 channels and (16, 24) of 48: at the largest ratio the width does not show.
    "resnet, width hidden by rounding": ResnetChoices(
        48, (ResnetStage(48, 1, (1, 2)), ResnetStage(96, 2, (1, 3))), (0.2, 0.5), (5 / 6, 1)
    ).build((3, 8, 8), 10),
    "mlp": MlpChoices((1, 2, 4), (8, 16, 32), PRECISION).build((1, 8, 8), 10),
    "mlp of channels": MlpChoices((1, 2), (8, 16), PrecisionChoices((4, 8), (8,), (0.0, 0.25, 0.5), "channel")).build(
        (1, 8, 8), 10
    ),
    "resnet, some of whose groups are whole": ResnetChoices(
        12,
        (ResnetStage(12, 1, (1, 2)), ResnetStage(24, 2, (1, 3))),
        (0.25, 0.5),
        (0.5, 1),
        PrecisionChoices((8,), (8,), (0.0, 0.5, 0.75), "n_of_m"),
        (0, 1),
        divisor=1,
    ).build((3, 32, 32), 10),
    "deepsets": DeepsetsChoices(Tower((1, 2, 3), (8, 16, 32)), Tower((1, 2), (12, 24)), (4, 16, 8), PRECISION).build(
        (4, 16, 1), 10
    ),
    "interaction": InteractionChoices(
        Tower((1, 2, 3), (8, 16, 32)), Tower((1, 2), (12, 24)), (4, 16, 8), PRECISION
    ).build((4, 16, 1), 10),
}


def test_every_space_is_covered() -> None:
    built = {choices.__name__.removesuffix("Choices") for choices in SPACES.values()}
    for examples in (TINY, AMPLE):
        assert built == {type(space).__name__.removesuffix("Space") for space in examples.values()}
    assert all(choices.__pydantic_config__ == {"extra": "forbid"} for choices in SPACES.values())


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> SearchSpace:
    return TINY[request.param]


@pytest.fixture(params=AMPLE)
def ample(request: pytest.FixtureRequest) -> SearchSpace:
    return AMPLE[request.param]


def some(space: SearchSpace, size: int) -> IntArray:
    return random_population(space, size, np.random.default_rng(0))


def test_canonical_genotypes_are_the_networks(tiny: SearchSpace, every: Callable[[SearchSpace], IntArray]) -> None:
    everything = every(tiny)
    networks = {tiny.lower(genotype.tolist()) for genotype in everything}
    assert len(networks) == len(everything) == count_networks(tiny)
    assert len({network.key for network in networks}) == len(networks)


def test_genes_without_effect_change_nothing(ample: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(0, choice_counts(ample), size=(100, len(ample.genes)))
    once = canonical(ample, raw)
    assert np.array_equal(canonical(ample, once), once)
    assert (once != raw).any()
    for row, reduced in zip(raw, once, strict=True):
        assert ample.lower(row.tolist()) == ample.lower(reduced.tolist())


def test_shapes_chain_from_input_to_logits(ample: SearchSpace) -> None:
    for genotype in some(ample, 50):
        network = ample.lower(genotype.tolist())
        assert network.layers[-1].out_shape == (10,)
        assert isinstance(network.layers[-1], Linear)
        names = {source for layer in network for source in layer.inputs}
        assert names == {layer.name for layer in network.layers[:-1]}


def test_convolutions_keep_their_arithmetic(ample: SearchSpace) -> None:
    for genotype in some(ample, 50):
        for layer in ample.lower(genotype.tolist()):
            if isinstance(layer, Conv2d):
                expected = [
                    (size + 2 * (layer.kernel // 2) - layer.kernel) // layer.stride + 1 for size in layer.in_shape[1:]
                ]
                assert list(layer.out_shape[1:]) == expected
                assert layer.in_shape[0] % layer.groups == layer.out_shape[0] % layer.groups == 0


def test_choices_ascend_in_size(ample: SearchSpace) -> None:
    """One index up, all else as large as can be, never shrinks a network, and the largest holds the most weights."""
    top = largest(ample)

    def size(genotype: Sequence[int]) -> tuple[int, float, int, int]:
        network = ample.lower(genotype)
        bits = sum(layer.precision.act_bits for layer in network.weighted)
        return sum(map(nonzeros, network)), sum(map(weight_bytes, network)), bits, sum(map(macs, network))

    for gene, count in enumerate(choice_counts(ample)):
        sizes = [size([*top[:gene], choice, *top[gene + 1 :]]) for choice in range(count)]
        for small, large in itertools.pairwise(sizes):
            assert all(a <= b for a, b in zip(small, large, strict=True))
            assert small != large or ample.genes[gene].kind == "kernel"


def test_maximal_networks_hold_every_layer(ample: SearchSpace) -> None:
    held: dict[str, Layer] = {}
    for network in ample.maximal():
        held |= network.by_name
    for genotype in some(ample, 50):
        for layer in ample.lower(genotype.tolist()).weighted:
            full = held[layer.name]
            assert isinstance(full, Conv2d | Linear)
            assert all(a <= b for a, b in zip(layer.weight_shape, full.weight_shape, strict=True))


def test_every_layer_has_the_pattern_of_its_space(ample: SearchSpace) -> None:
    choices: Any = ample.choices  # type: ignore[attr-defined]
    channels = replace(choices, precision=replace(choices.precision, pattern="channel"))
    space: SearchSpace = replace(ample, choices=channels)  # type: ignore[type-var]
    for genotype in some(space, 5):
        assert {layer.pattern for layer in space.lower(genotype.tolist()).weighted} == {"channel"}


def test_tables_equal_lowered_sums(ample: SearchSpace) -> None:
    tables = layer_tables(ample)
    population = np.concatenate([some(ample, 200), largest(ample)[None], np.zeros((1, len(ample.genes)), dtype=int)])
    networks = [ample.lower(genotype.tolist()) for genotype in population]
    for cost in (weight_bytes, macs, nonzeros, price_everything):
        gathered = additive(ample, tables, cost, constant=3.0)(population)
        assert gathered == pytest.approx([3.0 + sum(map(cost, network)) for network in networks])


def price_everything(layer: Layer) -> float:
    """Depends on each field of a layer, so that no gene goes unnoticed."""
    fields = repr(layer).encode()
    return float(sum(byte * (index % 97 + 1) for index, byte in enumerate(fields)) % 10007)


def test_tables_sum_vectors_too(ample: SearchSpace) -> None:
    population = some(ample, 20)
    both = additive(ample, layer_tables(ample), lambda layer: np.array([macs(layer), weight_count(layer)], dtype=float))
    expected = [[sum(map(macs, n)), sum(map(weight_count, n))] for n in (ample.lower(g.tolist()) for g in population)]
    assert both(population) == pytest.approx(np.array(expected))


def test_a_table_lists_every_form(ample: SearchSpace) -> None:
    population = some(ample, 50)
    for table in layer_tables(ample):
        sizes = [len(ample.genes[gene].choices) for gene in table.genes]
        assert len(table.forms) == int(np.prod(sizes, dtype=int))
        for genotype in population:
            row = int(np.ravel_multi_index(genotype[list(table.genes)], sizes)) if sizes else 0
            assert table.forms[row] == ample.lower(genotype.tolist()).by_name.get(table.name)


class TwoOpsOfOneName:
    """The second layer is a Mean or a Linear, both named `x`."""

    genes = (Gene("op", "width", (1, 2)),)

    def lower(self, genotype: Sequence[int]) -> Network:
        mean, linear = Mean("x", ("input",), (1,)), Linear("x", ("input",), (1,), (1,))
        return Network((Input("input", (1,)), linear if genotype[0] else mean))

    def maximal(self) -> tuple[Network, ...]:
        return (self.lower([1]),)


def test_one_name_stands_for_one_op() -> None:
    with pytest.raises(NasError, match="layer x: is a Linear in one network and a Mean in another; give them names"):
        layer_tables(TwoOpsOfOneName())


def test_bad_genotypes_are_refused(ample: SearchSpace) -> None:
    genes = ample.genes
    with pytest.raises(NasError, match=f"{len(genes)} genes, got 1"):
        ample.lower([0])
    for wrong in (-1, len(genes[0].choices)):
        with pytest.raises(
            NasError, match=f"gene {genes[0].name}: index must be 0..{len(genes[0].choices) - 1}, got {wrong}"
        ):
            ample.lower([wrong] + [0] * (len(genes) - 1))


def test_a_mobile_network_by_hand() -> None:
    space = MobileChoices(4, (Stage(6, 2, (1, 2)),), (3,), (1.5,)).build((1, 8, 8), 10)
    network = space.lower(largest(space).tolist())
    assert [(type(layer).__name__, layer.name, layer.out_shape) for layer in network] == [
        (Input.__name__, "input", (1, 8, 8)),
        (Conv2d.__name__, "stem", (4, 8, 8)),
        (Conv2d.__name__, "s1.b1.expand", (6, 8, 8)),
        (Conv2d.__name__, "s1.b1.depthwise", (6, 4, 4)),
        (Conv2d.__name__, "s1.b1.project", (6, 4, 4)),
        (Conv2d.__name__, "s1.b2.expand", (9, 4, 4)),
        (Conv2d.__name__, "s1.b2.depthwise", (9, 4, 4)),
        (Conv2d.__name__, "s1.b2.project", (6, 4, 4)),
        (Add.__name__, "s1.b2.add", (6, 4, 4)),
        (Mean.__name__, "mean", (6,)),
        (Linear.__name__, "head", (10,)),
    ]
    assert network.by_name["s1.b2.add"].inputs == ("s1.b1.project", "s1.b2.project")
    assert macs(network.by_name["s1.b1.depthwise"]) == 6 * 9 * 16


def test_a_deepsets_network_by_hand() -> None:
    space = DeepsetsChoices(Tower((1, 3), (8, 16)), Tower((1, 2), (12,)), (4, 8)).build((3, 8, 1), 5)
    network = space.lower(largest(space).tolist())
    assert [(type(layer).__name__, layer.name, layer.out_shape) for layer in network] == [
        (Input.__name__, "input", (3, 8, 1)),
        (Conv2d.__name__, "phi1", (16, 8, 1)),
        (Conv2d.__name__, "phi2", (16, 8, 1)),
        (Conv2d.__name__, "latent3", (16, 8, 1)),
        (Mean.__name__, "mean", (16,)),
        (Linear.__name__, "rho1", (12,)),
        (Linear.__name__, "rho2", (12,)),
        (Linear.__name__, "head2", (5,)),
    ]
    assert macs(network.by_name["latent3"]) == 16 * 16 * 8
    smallest = space.lower([0] * len(space.genes))
    assert [layer.name for layer in smallest] == ["input", "latent1", "mean", "rho1", "head1"]
    assert smallest.input.out_shape == (3, 4, 1)
    assert smallest.by_name["latent1"].out_shape == (8, 4, 1)


def test_an_interaction_network_by_hand() -> None:
    space = InteractionChoices(Tower((1, 2), (6, 8)), Tower((1, 2), (7,)), (4, 8)).build((3, 8, 1), 5)
    network = space.lower(largest(space).tolist())
    assert [(type(layer).__name__, layer.name, layer.inputs, layer.out_shape) for layer in network] == [
        (Input.__name__, "input", (), (3, 8, 1)),
        (Conv2d.__name__, "edge1.receiver", ("input",), (8, 8, 1)),
        (Conv2d.__name__, "edge1.sender", ("input",), (8, 8, 1)),
        (PairSum.__name__, "edge1", ("edge1.receiver", "edge1.sender"), (8, 8, 8)),
        (Conv2d.__name__, "message2", ("edge1",), (8, 8, 8)),
        (RowMean.__name__, "node1.gathered", ("message2",), (8, 8, 1)),
        (Conv2d.__name__, "node1.own", ("input",), (7, 8, 1)),
        (Conv2d.__name__, "node1.received", ("node1.gathered",), (7, 8, 1)),
        (Add.__name__, "node1", ("node1.own", "node1.received"), (7, 8, 1)),
        (Conv2d.__name__, "latent2", ("node1",), (7, 8, 1)),
        (Mean.__name__, "mean", ("latent2",), (7,)),
        (Linear.__name__, "head", ("mean",), (5,)),
    ]
    assert macs(network.by_name["edge1.sender"]) == 3 * 8 * 8
    assert macs(network.by_name["message2"]) == 8 * 8 * 64
    smallest = space.lower([0] * len(space.genes))
    assert [layer.name for layer in smallest if isinstance(layer, PairSum | Add)] == ["message1", "latent1"]
    assert smallest.by_name["message1"].out_shape == (6, 4, 4)


def test_choices_of_particles_say_how_many_there_are() -> None:
    space = DeepsetsChoices(Tower((2,), (4,)), Tower((1,), (4,))).build((3, 10, 1), 5)
    assert {network.input.out_shape for network in space.maximal()} == {(3, 10, 1)}
    assert not [gene for gene in space.genes if gene.kind == "resolution"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MobileChoices(4, (Stage(6, 2, (1,)),), (4,), (2,)), r"kernel choices must be odd, got \[4\]"),
        (lambda: MobileChoices(4, (), (3,), (2,)), "at least one stage"),
        (lambda: MobileChoices(4, (Stage(6, 2, (1,)),), (3,), (0.0,)), "expand ratios must be positive"),
        (lambda: Stage(6, 0, (1,)), "stride"),
        (lambda: MlpChoices((1,), ()), "width must list distinct choices, at least one"),
        (lambda: MlpChoices((1, 1), (2,)), r"depth must list distinct choices, at least one; got \[1, 1\]"),
        (lambda: MlpChoices((0, 1), (2,)), "must be at least 1"),
        (lambda: Tower((0, 1), (2,)), "must be at least 1"),
        (lambda: Tower((1,), (2, 2)), r"width must list distinct choices, at least one; got \[2, 2\]"),
        (lambda: DeepsetsChoices(*TOWERS, (4, 6)), r"particles must be powers of two.*got \[4, 6\]"),
        (lambda: DeepsetsChoices(*TOWERS).build((3, 8, 8), 5), r"reads sets.*this data has shape \(3, 8, 8\)"),
        (lambda: DeepsetsChoices(*TOWERS, (4, 16)).build((3, 8, 1), 5), "at most the data's, 8; got 16"),
        (lambda: InteractionChoices(*TOWERS).build((3, 8), 5), r"`interaction` reads sets.*has shape \(3, 8\)"),
        (lambda: PrecisionChoices(sparsity=(1.0,)), r"sparsity must lie in \[0, 1\)"),
        (
            lambda: PrecisionChoices(sparsity=(0, 0.6), pattern="n_of_m"),
            r"sparsity must be multiples of 1/4 for pattern n_of_m.*got \[0, 0.6\]",
        ),
        (lambda: PrecisionChoices(weight_bits=(1,)), "weight_bits must be 2..16"),
        (lambda: PrecisionChoices(act_bits=(24,)), "act_bits must be 2..16"),
        (lambda: MobileChoices(4, (Stage(6, 2, (1,)),), (3,), (2,)).build((64,), 10), r"this data has shape \(64,\)"),
    ],
)
def test_bad_choices_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        make()

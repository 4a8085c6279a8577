"""`mobile` at full size against published networks: their parameters, multiply-accumulates and channels."""

from collections.abc import Callable

import numpy as np
import pytest

from nas.counts import macs, weight_count
from nas.errors import NasError
from nas.genotype import count_networks, largest, random_population
from nas.network import Conv2d, Input, Linear, Mean, Network, Precision, Scale
from nas.spaces import MobileChoices
from nas.spaces.images import make_divisible
from nas.spaces.mobile import MobileSpace, Stage
from nas.spaces.precision import PrecisionChoices
from nas.tables import additive, layer_tables

IMAGE = (3, 224, 224)
RESOLUTION = (128, 160, 192, 224)


def once_for_all(precision: PrecisionChoices, resolution: tuple[int, ...] = RESOLUTION) -> MobileSpace:
    """OFA-MobileNetV3, width multiplier 1 (arXiv 1908.09791, section 4 and its code)."""
    stages = (
        Stage(16, 1, (1,), (3,), (1,)),
        Stage(24, 2, (2, 3, 4)),
        Stage(40, 2, (2, 3, 4), squeeze=True),
        Stage(80, 2, (2, 3, 4), activation="hswish"),
        Stage(112, 1, (2, 3, 4), activation="hswish", squeeze=True),
        Stage(160, 2, (2, 3, 4), activation="hswish", squeeze=True),
    )
    return MobileChoices(
        16, stages, (3, 5, 7), (3, 4, 6), precision, 2, "hswish", resolution, 960, 1280, divisor=8
    ).build(IMAGE, 1000)  # fmt: skip


def parameters(network: Network) -> int:
    """As published tables count: weights, and gain and bias of BatchNorm, or a bias where there is none."""
    return sum(weight_count(layer) + layer.out_shape[0] * (1 + layer.norm) for layer in network.weighted)


def total_macs(network: Network) -> int:
    return sum(map(macs, network))


def convolution(network: Network, name: str) -> Conv2d:
    layer = network.by_name[name]
    assert isinstance(layer, Conv2d)
    return layer


def of_values(space: MobileSpace, values: dict[str, float]) -> Network:
    """The network in which the genes of these names take these values; the others have one choice, or are largest."""
    top = largest(space).tolist()
    return space.lower(
        [g.choices.index(values[g.name]) if g.name in values else top[i] for i, g in enumerate(space.genes)]
    )


def ratios(expanded: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Expand ratios of blocks from the channels they read and expand to."""
    return {f"{block}.ratio": inside / reads for block, (reads, inside) in expanded.items()}


def mobilenet_v2(multiple: float) -> Network:
    """arXiv 1801.04381, table 2."""
    rows = [(16, 1, 1, 1), (24, 2, 2, 6), (32, 2, 3, 6), (64, 2, 4, 6), (96, 1, 3, 6), (160, 2, 3, 6), (320, 1, 1, 6)]
    stages = tuple(Stage(width, stride, (depth,), (), (ratio,)) for width, stride, depth, ratio in rows)
    choices = MobileChoices(
        32, stages, (3,), (6,), stem_stride=2, final=1280, width_multiple=multiple, divisor=8
    )  # fmt: skip
    return choices.build(IMAGE, 1000).maximal()[0]


def mobilenet_v3_large() -> Network:
    """arXiv 1905.02244, table 1."""
    expanded = {
        "s2.b1": (16, 64), "s2.b2": (24, 72), "s3.b1": (24, 72), "s3.b2": (40, 120), "s3.b3": (40, 120),
        "s4.b1": (40, 240), "s4.b2": (80, 200), "s4.b3": (80, 184), "s4.b4": (80, 184), "s5.b1": (80, 480),
        "s5.b2": (112, 672), "s6.b1": (112, 672), "s6.b2": (160, 960), "s6.b3": (160, 960),
    }  # fmt: skip
    stages = (
        Stage(16, 1, (1,), (), (1,)),
        Stage(24, 2, (2,), (), (3, 4)),
        Stage(40, 2, (3,), (5,), (3,), squeeze=True),
        Stage(80, 2, (4,), (), (2.3, 2.5, 6), "hswish"),
        Stage(112, 1, (2,), (), (6,), "hswish", True),
        Stage(160, 2, (3,), (5,), (6,), "hswish", True),
    )
    choices = MobileChoices(
        16, stages, (3,), (6,), stem_stride=2, stem_activation="hswish", final=960, features=1280, divisor=8
    )
    return of_values(choices.build(IMAGE, 1000), ratios(expanded))


def mobilenet_v3_small() -> Network:
    """arXiv 1905.02244, table 2."""
    expanded = {
        "s2.b1": (16, 72), "s2.b2": (24, 88), "s3.b1": (24, 96), "s3.b2": (40, 240), "s3.b3": (40, 240),
        "s4.b1": (40, 120), "s4.b2": (48, 144), "s5.b1": (48, 288), "s5.b2": (96, 576), "s5.b3": (96, 576),
    }  # fmt: skip
    stages = (
        Stage(16, 2, (1,), (), (1,), squeeze=True),
        Stage(24, 2, (2,), (), (4.5, 88 / 24)),
        Stage(40, 2, (3,), (5,), (4, 6), "hswish", True),
        Stage(48, 1, (2,), (5,), (3,), "hswish", True),
        Stage(96, 2, (3,), (5,), (6,), "hswish", True),
    )
    choices = MobileChoices(
        16, stages, (3,), (6,), stem_stride=2, stem_activation="hswish", final=576, features=1024, divisor=8
    )
    return of_values(choices.build(IMAGE, 1000), ratios(expanded))


@pytest.mark.parametrize(
    ("make", "count", "millions"),
    [
        (lambda: mobilenet_v2(1.0), 3_504_872, 301),
        (mobilenet_v3_large, 5_483_032, 217),
        (mobilenet_v3_small, 2_542_856, 57),
    ],
)
def test_published_networks_are_members(make: Callable[[], Network], count: int, millions: int) -> None:
    """Parameters to the last one, and millions of multiply-accumulates, of the published ImageNet models."""
    network = make()
    assert parameters(network) == count
    assert round(total_macs(network) / 1e6) == millions


@pytest.mark.parametrize(
    ("multiple", "widths"),
    [
        (1.4, (48, 24, 32, 48, 88, 136, 224, 448, 1792)),
        (0.35, (16, 8, 8, 16, 24, 32, 56, 112, 448)),
        (1.0, (32, 16, 24, 32, 64, 96, 160, 320, 1280)),
    ],
)
def test_width_multiples_round_as_published(multiple: float, widths: tuple[int, ...]) -> None:
    network = mobilenet_v2(multiple)
    names = ["stem", *(f"s{s}.b1.project" for s in range(1, 8)), "final"]
    assert tuple(convolution(network, name).out_shape[0] for name in names) == widths


def test_squeezes_round_as_published() -> None:
    """Widths of squeeze-and-excitation in MobileNetV3-Large."""
    squeezes = [layer.out_shape[0] for layer in mobilenet_v3_large() if layer.name.endswith("squeeze.reduce")]
    assert squeezes == [24, 32, 32, 120, 168, 168, 240, 240]


def test_make_divisible_keeps_its_law() -> None:
    for divisor in (1, 2, 8, 32):
        for channels in np.linspace(0.1, 300, 997):
            rounded = make_divisible(channels, divisor)
            assert rounded % divisor == 0
            assert rounded >= divisor
            assert rounded >= 0.9 * channels
            nearest = abs(rounded - channels) <= divisor / 2
            assert nearest or rounded == divisor or rounded - divisor < 0.9 * channels


def test_once_for_all_has_its_number_of_networks() -> None:
    blocks = 3 * 3
    per_resolution = (blocks**2 + blocks**3 + blocks**4) ** 5
    assert per_resolution == pytest.approx(2.18e19, rel=1e-2)
    assert count_networks(once_for_all(PrecisionChoices())) == 4 * per_resolution
    assert count_networks(once_for_all(PrecisionChoices(), ())) == per_resolution


def test_once_for_all_by_hand() -> None:
    space = once_for_all(PrecisionChoices())
    network = space.lower(largest(space).tolist())
    assert network == space.maximal()[0]
    by_name = network.by_name
    assert "s1.b1.expand" not in by_name
    assert by_name["s1.b1.add"].inputs == ("stem", "s1.b1.project")
    assert macs(by_name["stem"]) == 3 * 16 * 9 * 112**2
    assert macs(by_name["s2.b1.expand"]) == 16 * 96 * 112**2
    assert macs(by_name["s2.b1.depthwise"]) == 96 * 49 * 56**2
    assert macs(by_name["s6.b4.project"]) == 960 * 160 * 7**2
    assert macs(by_name["s6.b4.squeeze.reduce"]) == macs(by_name["s6.b4.squeeze.gates"]) == 960 * 240
    assert macs(by_name["final"]) == 160 * 960 * 7**2
    assert macs(by_name["features"]) == 960 * 1280
    assert by_name["mean"].inputs == ("final",)
    activations = {name: getattr(by_name[name], "activation", None) for name in ("stem", "final", "features", "head")}
    assert activations == {"stem": "hswish", "final": "hswish", "features": "hswish", "head": "identity"}
    assert [convolution(network, f"s{s}.b1.depthwise").activation for s in range(1, 7)] == ["relu"] * 3 + ["hswish"] * 3


def test_the_resolution_moves_maps_and_no_weights() -> None:
    space = once_for_all(PrecisionChoices())
    column = [gene.name for gene in space.genes].index("resolution")
    networks = []
    for index, edge in enumerate(RESOLUTION):
        genotype = largest(space)
        genotype[column] = index
        network = space.lower(genotype.tolist())
        assert network.input == Input("input", (3, edge, edge))
        assert network.by_name["final"].out_shape == (960, edge // 32, edge // 32)
        networks.append(network)
    assert len({tuple(layer.weight_shape for layer in network.weighted) for network in networks}) == 1


def test_a_squeezed_block_by_hand() -> None:
    stages = (Stage(6, 2, (1,), squeeze=True, activation="hswish"),)
    precision = PrecisionChoices((8,), (8,))
    network = MobileChoices(4, stages, (3,), (2,), precision).build((1, 8, 8), 10).maximal()[0]
    block = [layer for layer in network if layer.name.startswith("s1.b1")]
    assert [(type(layer).__name__, layer.name, layer.out_shape) for layer in block] == [
        ("Conv2d", "s1.b1.expand", (8, 8, 8)),
        ("Conv2d", "s1.b1.depthwise", (8, 4, 4)),
        ("Mean", "s1.b1.squeeze.mean", (8,)),
        ("Linear", "s1.b1.squeeze.reduce", (2,)),
        ("Linear", "s1.b1.squeeze.gates", (8,)),
        ("Scale", "s1.b1.squeeze.scale", (8, 4, 4)),
        ("Conv2d", "s1.b1.project", (6, 4, 4)),
    ]
    _, depthwise, mean, reduce, gates, scale, project = block
    assert isinstance(mean, Mean)
    assert isinstance(reduce, Linear)
    assert isinstance(gates, Linear)
    assert isinstance(scale, Scale)
    assert (reduce.activation, reduce.norm, gates.activation, gates.norm) == ("relu", False, "hsigmoid", False)
    assert scale.inputs == (depthwise.name, gates.name)
    assert project.inputs == (scale.name,)
    assert {layer.precision for layer in (mean, reduce, gates, scale)} == {Precision(8, 8)}


@pytest.mark.parametrize(
    "precision",
    [
        PrecisionChoices(),
        pytest.param(PrecisionChoices((2, 3, 4, 6, 8), (4, 6, 8, 32), (0.0, 0.5, 0.75)), marks=pytest.mark.slow),
    ],
)
def test_tables_at_full_size_equal_lowered_sums(precision: PrecisionChoices) -> None:
    space = once_for_all(precision)
    gathered = additive(space, layer_tables(space), macs)
    population = random_population(space, 100, np.random.default_rng(0))
    assert gathered(population).tolist() == [total_macs(space.lower(genotype)) for genotype in population.tolist()]


def small(
    expand: tuple[float, ...] = (2,),
    stem_stride: int = 1,
    resolution: tuple[int, ...] = (),
    final: int = 0,
    features: int = 0,
    width_multiple: float = 1.0,
    divisor: int = 1,
) -> MobileChoices:
    return MobileChoices(
        8, (Stage(8, 2, (1,)),), (3,), expand, PrecisionChoices(), stem_stride, "relu", resolution, final, features,
        width_multiple, divisor,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(8, 1, (1,), (3, 4)), r"kernel choices must be odd, got \[3, 4\]"),
        (lambda: Stage(8, 1, (1,), (), (2, 2)), r"expand must list distinct choices, at least one; got \[2, 2\]"),
        (lambda: Stage(8, 1, (1,), (), (0,)), r"expand ratios must be positive, got \[0\]"),
        (lambda: small(stem_stride=0), "stem_stride must be at least 1, got 0"),
        (lambda: small(final=-1), "final and features are widths, 0 for none; got -1 and 0"),
        (lambda: small(features=-8), "final and features are widths, 0 for none; got 0 and -8"),
        (lambda: small(divisor=0), "divisor must be at least 1, which rounds to whole channels; got 0"),
        (lambda: small(width_multiple=0.0), r"width_multiple ratios must be positive, got \[0.0\]"),
        (
            lambda: small(stem_stride=4, resolution=(8, 7)),
            "resolution must be at least the product of all strides, 8; got 7; raise it or lower strides",
        ),
        (lambda: small(resolution=(8, 8)), r"resolution must list distinct choices, at least one; got \[8, 8\]"),
        (
            lambda: small(expand=(1.1, 1.2), divisor=8),
            "s1.b1: each expand choice must give its own number of channels, a multiple of 8; "
            "1.1 and 1.2 both give 16; drop one, or lower the divisor",
        ),
        (
            lambda: small(resolution=(8,)).build((1, 8, 9), 2),
            r"a mobile space: resolution lists edges of square images; this data has shape \(1, 8, 9\); leave",
        ),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        make()

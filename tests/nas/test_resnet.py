"""`resnet` at full size against published networks: their parameters, multiply-accumulates and shapes."""

from collections.abc import Callable

import numpy as np
import pytest

from nas.counts import macs, weight_count
from nas.errors import NasError
from nas.genotype import count_networks, largest, random_population
from nas.network import Add, Conv2d, Network, Pool
from nas.spaces import ResnetChoices
from nas.spaces.precision import PrecisionChoices
from nas.spaces.resnet import ResnetSpace, ResnetStage
from nas.tables import additive, layer_tables

WIDTHS, STRIDES = (256, 512, 1024, 2048), (1, 2, 2, 2)
DEEP_STEM = 9 * (3 * 32 + 32 * 32 + 32 * 64)
PLAIN_STEM = 49 * 3 * 64


def parameters(network: Network) -> int:
    """As published tables count: weights, and gain and bias of BatchNorm, or a bias where there is none."""
    return sum(weight_count(layer) + layer.out_shape[0] * (1 + layer.norm) for layer in network.weighted)


def total_macs(network: Network) -> int:
    return sum(map(macs, network))


def convolution(network: Network, name: str) -> Conv2d:
    layer = network.by_name[name]
    assert isinstance(layer, Conv2d)
    return layer


def resnet_d(*depths: int) -> Network:
    """ResNet-D (arXiv 1812.01187, figure 2) with these numbers of blocks."""
    stages = tuple(ResnetStage(w, s, (d,)) for w, s, d in zip(WIDTHS, STRIDES, depths, strict=True))
    choices = ResnetChoices(64, stages, (0.25,), stem_depth=(1,), stem_stride=2, stem_pool=True)
    return choices.build((3, 224, 224), 1000).maximal()[0]


def once_for_all(precision: PrecisionChoices, resolution: tuple[int, ...]) -> ResnetSpace:
    """OFA-ResNet50D: depths 2, 2, 4, 2 and up to 2 more."""
    stages = tuple(ResnetStage(w, s, (d, d + 1, d + 2)) for w, s, d in zip(WIDTHS, STRIDES, (2, 2, 4, 2), strict=True))
    return ResnetChoices(
        64, stages, (0.2, 0.25, 0.35), (0.65, 0.8, 1.0), precision, (0, 1), 2, True, resolution
    ).build((3, 224, 224), 1000)  # fmt: skip


@pytest.mark.parametrize(
    ("depths", "plain"),
    [((3, 4, 6, 3), 25_557_032), ((3, 4, 23, 3), 44_549_160), ((3, 8, 36, 3), 60_192_808)],
)
def test_published_networks_are_members(depths: tuple[int, ...], plain: int) -> None:
    """ResNet-D has the parameters of the published ResNet-50, -101 and -152 but for the stem; BatchNorm's included."""
    assert parameters(resnet_d(*depths)) == plain - PLAIN_STEM - 2 * 64 + DEEP_STEM + 2 * (32 + 32 + 64)


def test_multiply_accumulates_are_those_of_resnet_50() -> None:
    plain = 4_089_184_256  # of ResNet-50 whose 3x3 convolutions stride
    assert total_macs(resnet_d(3, 4, 6, 3)) == plain + (DEEP_STEM - PLAIN_STEM) * 112**2


def test_once_for_all_has_its_number_of_networks() -> None:
    stage, long_stage = 3**2 + 3**3 + 3**4, 3**4 + 3**5 + 3**6
    per_resolution = 2 * 3**5 * stage**3 * long_stage
    assert count_networks(once_for_all(PrecisionChoices(), ())) == per_resolution
    assert count_networks(once_for_all(PrecisionChoices(), (128, 160, 192, 224))) == 4 * per_resolution


def test_widths_round_as_in_once_for_all() -> None:
    space = once_for_all(PrecisionChoices(), ())
    smallest = space.lower([0] * len(space.genes))
    widths = [convolution(smallest, f"s{s}.b1.restore").out_shape[0] for s in range(1, 5)]
    middles = [convolution(smallest, f"s{s}.b1.conv").out_shape[0] for s in range(1, 5)]
    stem = [convolution(smallest, f"stem.conv{n}").out_shape[0] for n in (1, 3)]
    assert (stem, widths, middles) == ([24, 40], [168, 336, 664, 1328], [32, 64, 136, 264])
    assert "stem.conv2" not in smallest.by_name
    assert "s3.b5.add" not in smallest.by_name


def test_a_strided_block_by_hand() -> None:
    network = resnet_d(3, 4, 6, 3)
    block = [(layer.name, layer.inputs, layer.out_shape) for layer in network if layer.name.startswith("s2.b1.")]
    assert block == [
        ("s2.b1.reduce", ("s1.b3.add",), (128, 56, 56)),
        ("s2.b1.conv", ("s2.b1.reduce",), (128, 28, 28)),
        ("s2.b1.restore", ("s2.b1.conv",), (512, 28, 28)),
        ("s2.b1.pool", ("s1.b3.add",), (256, 28, 28)),
        ("s2.b1.shortcut", ("s2.b1.pool",), (512, 28, 28)),
        ("s2.b1.add", ("s2.b1.shortcut", "s2.b1.restore"), (512, 28, 28)),
    ]
    activations = {
        name: convolution(network, f"s2.b1.{name}").activation for name in ("reduce", "conv", "restore", "shortcut")
    }
    assert activations == {"reduce": "relu", "conv": "relu", "restore": "identity", "shortcut": "identity"}
    pool, add = network.by_name["s2.b1.pool"], network.by_name["s2.b1.add"]
    assert isinstance(pool, Pool)
    assert (pool.kernel, pool.stride, pool.kind) == (2, 2, "mean")
    assert isinstance(add, Add)
    assert add.activation == "relu"
    assert network.by_name["s2.b2.add"].inputs == ("s2.b1.add", "s2.b2.restore")
    assert network.by_name["s1.b1.shortcut"].inputs == ("stem.pool",)


def test_the_stem_by_hand() -> None:
    network = resnet_d(3, 4, 6, 3)
    stem = [(type(layer).__name__, layer.name, layer.inputs, layer.out_shape) for layer in network.layers[1:6]]
    assert stem == [
        ("Conv2d", "stem.conv1", ("input",), (32, 112, 112)),
        ("Conv2d", "stem.conv2", ("stem.conv1",), (32, 112, 112)),
        ("Add", "stem.add", ("stem.conv1", "stem.conv2"), (32, 112, 112)),
        ("Conv2d", "stem.conv3", ("stem.add",), (64, 112, 112)),
        ("Pool", "stem.pool", ("stem.conv3",), (64, 56, 56)),
    ]
    small = ResnetChoices(16, (ResnetStage(32, 1, (1,)),), (0.25,)).build((3, 32, 32), 10).maximal()[0]
    assert [(layer.name, layer.out_shape) for layer in small.layers[1:4]] == [
        ("stem.conv1", (8, 32, 32)),
        ("stem.conv3", (16, 32, 32)),
        ("s1.b1.reduce", (8, 32, 32)),
    ]


@pytest.mark.parametrize(
    "precision",
    [
        PrecisionChoices(),
        pytest.param(PrecisionChoices((2, 3, 4, 6, 8), (4, 6, 8, 32), (0.0, 0.5, 0.75)), marks=pytest.mark.slow),
    ],
)
def test_tables_at_full_size_equal_lowered_sums(precision: PrecisionChoices) -> None:
    space = once_for_all(precision, (128, 160, 192, 224))
    gathered = additive(space, layer_tables(space), macs)
    population = np.concatenate([random_population(space, 100, np.random.default_rng(0)), largest(space)[None]])
    assert gathered(population).tolist() == [total_macs(space.lower(genotype)) for genotype in population.tolist()]


def small(
    stem: int = 16,
    expand: tuple[float, ...] = (0.5,),
    width: tuple[float, ...] = (1.0,),
    stem_depth: tuple[int, ...] = (0,),
    resolution: tuple[int, ...] = (),
    divisor: int = 8,
) -> ResnetChoices:
    stages = (ResnetStage(32, 2, (1,)),)
    return ResnetChoices(stem, stages, expand, width, PrecisionChoices(), stem_depth, 2, True, resolution, divisor)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResnetStage(8, 0, (1,)), "width, stride and depth must be at least 1"),
        (lambda: ResnetStage(8, 1, ()), r"depth must list distinct choices, at least one; got \[\]"),
        (lambda: small(stem=0), "got stem 0, stem_stride 2 and 1 stages"),
        (lambda: ResnetChoices(8, (), (0.5,)), "got stem 8, stem_stride 1 and 0 stages"),
        (lambda: small(stem_depth=(0, 2)), r"0 or 1; got \[0, 2\]"),
        (lambda: small(expand=()), r"expand must list distinct choices, at least one; got \[\]"),
        (lambda: small(width=(-1.0,)), r"width ratios must be positive, got \[-1.0\]"),
        (lambda: small(divisor=0), "divisor must be at least 1"),
        (lambda: small(resolution=(4, 8)), "resolution must be at least the product of all strides, 8; got 4"),
        (
            lambda: small(width=(0.9, 1.0)),
            "stem: each width choice must give its own number of channels, a multiple of 8; 0.9 and 1 both give 16",
        ),
        (
            lambda: small(expand=(0.2, 0.25)),
            "s1 of width 32: each expand choice must give its own number of channels, a multiple of 8; "
            "0.2 and 0.25 both give 8",
        ),
        (lambda: small().build((64,), 10), r"a resnet space reads images \(channels, height, width\)"),
        (lambda: small(resolution=(8,)).build((1, 8, 9), 2), "resolution lists edges of square images"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NasError, match=message):
        make()

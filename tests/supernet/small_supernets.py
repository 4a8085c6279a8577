"""Small spaces, and supernets of them in float64 in which no parameter is at a value that hides a fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas.genotype import SearchSpace, random_population
from nas.network import Network
from nas.spaces import DeepsetsChoices, InteractionChoices, MlpChoices, MobileChoices, ResnetChoices
from nas.spaces.deepsets import Tower
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices
from nas.spaces.resnet import ResnetStage
from supernet.elastic import Supernet

FLOATS = PrecisionChoices(sparsity=(0.75, 0.5, 0.0))
QUANTIZED = PrecisionChoices((2, 3, 4, 8), (3, 4, 6, 8), (0.75, 0.5, 0.0))
MIXED = PrecisionChoices((2, 8, 32), (3, 8, 32), (0.75, 0.0))


def mobile(precision: PrecisionChoices) -> SearchSpace:
    """Skip connections after a ReLU (the stem's) and after none, three kernels, a stride."""
    stages = (Stage(4, 1, (1, 2)), Stage(6, 2, (1, 3)))
    return MobileChoices(4, stages, (1, 3, 5), (1, 2, 2.5), precision).build((1, 8, 8), 5)


def narrow(precision: PrecisionChoices) -> SearchSpace:
    """Depthwise convolutions over a single channel, and strides that do not divide the image."""
    return MobileChoices(1, (Stage(2, 3, (1, 2)), Stage(3, 2, (1,))), (3, 5), (1, 2), precision).build((2, 7, 7), 3)


def squeezed(precision: PrecisionChoices) -> SearchSpace:
    """MobileNetV3's parts: squeeze-and-excitation, hard swish, layers behind the last stage; two resolutions."""
    stages = (
        Stage(4, 1, (1, 2), expand=(1,)),
        Stage(6, 2, (1, 2), activation="hswish", squeeze=True),
        Stage(6, 1, (1, 2), squeeze=True),
    )
    return MobileChoices(
        4, stages, (3, 5), (1, 2.5), precision, stem_activation="hswish", resolution=(6, 9), final=8, features=7
    ).build((1, 9, 9), 5)


def resnet(precision: PrecisionChoices) -> SearchSpace:
    """Residual streams of elastic width, both pools, and sizes they do not divide."""
    stages = (ResnetStage(8, 1, (1, 2)), ResnetStage(12, 2, (1, 3)))
    return ResnetChoices(
        8, stages, (0.25, 0.5), (0.5, 1), precision, stem_depth=(0, 1), stem_pool=True, resolution=(9, 13), divisor=1
    ).build((2, 13, 13), 5)


def mlp(precision: PrecisionChoices) -> SearchSpace:
    return MlpChoices((1, 2, 4), (4, 6, 9), precision).build((3, 4), 5)


def deepsets(precision: PrecisionChoices) -> SearchSpace:
    """Sets of two sizes, towers of elastic depth on both sides of the mean."""
    return DeepsetsChoices(Tower((1, 2, 3), (4, 6, 9)), Tower((1, 2), (4, 7)), (4, 8), precision).build((3, 8, 1), 5)


def interaction(precision: PrecisionChoices) -> SearchSpace:
    """Sets of two sizes; towers of elastic depth on pairs and on particles, either of which may be one sum."""
    return InteractionChoices(Tower((1, 2, 3), (4, 6)), Tower((1, 2), (4, 7)), (4, 8), precision).build((3, 8, 1), 5)


EXAMPLES: dict[str, Callable[[PrecisionChoices], SearchSpace]] = {
    "mobile": mobile,
    "narrow": narrow,
    "squeezed": squeezed,
    "resnet": resnet,
    "mlp": mlp,
    "deepsets": deepsets,
    "interaction": interaction,
}


def supernet_of(space: SearchSpace, seed: int) -> Supernet:
    kernels = sorted({int(k) for gene in space.genes if gene.kind == "kernel" for k in gene.choices})
    supernet = Supernet(space.maximal(), kernels, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if parameter.requires_grad and not name.endswith(".weight"):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return supernet


def some_networks(space: SearchSpace, count: int, seed: int) -> list[Network]:
    return [space.lower(g) for g in random_population(space, count, np.random.default_rng(seed)).tolist()]


def some_images(space: SearchSpace, count: int, seed: int) -> Tensor:
    shape = (count, *space.maximal()[0].input.out_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

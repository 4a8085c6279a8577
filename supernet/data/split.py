"""The seam between data and training.

A `Split` gives float32 images in [0, 1] on the training device; nothing subtracts a mean, for BatchNorm after the
first layer absorbs it. A data set has three disjoint splits. train: fits weights and calibrates. validation: scores
subnets, so it feeds the predictor and the search. test: read by the finalize stage alone, after every decision.

All randomness of a step comes from its seed and from an image's place in the global batch. So any step can be
resumed, and N processes see what one process with the N-fold batch sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ORDER = 0x0DE5
"""Sets the stream of an epoch's order apart from those of its steps; not 0, which numpy drops from a seed's end."""


@dataclass(frozen=True)
class Step:
    """The images of one training step.

    Attributes:
        indices: The global batch, as indices into the split.
        seed: Of the step's augmentation; not negative.
        rows: This process's part of the global batch.
    """

    indices: IntArray
    seed: tuple[int, ...]
    rows: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied, each on its own.

    Attributes:
        shift: Moves by up to so many pixels in each direction, zeros coming in.
        flip: Mirrors every second image, left to right.
        crop: Least share of the area that a random crop keeps, scaled back to size ("Going Deeper with Convolutions",
            arXiv 1409.4842, section 6); 0: no cropping. Image folders only.
    """

    shift: int = 0
    flip: bool = False
    crop: float = 0.0

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise NasError(f"augmentation: shift must be at least 0 pixels, got {self.shift}")
        if not 0 <= self.crop <= 1:
            raise NasError(f"augmentation: crop must be a share of the area in [0, 1], got {self.crop}")


NONE = Augmentation()


class Split(Protocol):
    """Labelled images of one shape."""

    @property
    def labels(self) -> Tensor:
        """int64 on the CPU, shape (n,)."""

    @property
    def input_shape(self) -> Shape:
        """Shape of one image."""

    def __len__(self) -> int: ...

    def stream(
        self, steps: Iterable[Step], augmentation: Augmentation, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of every step's rows, on the device; nothing before the first step is read.

        Raises:
            NasError: The split cannot be augmented so, or an image cannot be read.
        """

    def first(self, count: int, device: torch.device) -> Tensor:
        """The first `count` images, unaugmented, to calibrate on; a training split is in shuffled order."""

    def whole(self, device: torch.device, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, unaugmented, in batches, the last one as large as it comes out."""


@dataclass(frozen=True)
class Scaling:
    """What was done to each feature of a table: `(value - mean) / std`, both of the training rows."""

    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits; a worker process does not receive it but loads it anew from its source."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    scaling: Scaling | None = None

    @property
    def input_shape(self) -> Shape:
        return self.train.input_shape


def order(count: int, batch: int, seed: int, epoch: int) -> list[IntArray]:
    """One epoch's shuffled indices in batches of exactly `batch`; the rest that fills none waits for another shuffle.

    Fewer images than `batch` make one batch of all of them.
    """
    shuffled = np.random.default_rng([seed, epoch, _ORDER]).permutation(count)
    return [shuffled[start : start + batch] for start in range(0, max(count - batch, 0) + 1, batch)]

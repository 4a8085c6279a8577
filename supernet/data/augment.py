"""Augmentation on the training device, from numbers drawn on the CPU for the whole global batch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.genotype import FloatArray, IntArray
from supernet.data.split import Augmentation, Step

_AUGMENTATION = 0xA06
DRAWS = 7
"""Numbers drawn for each image: row, column, mirror, and area, aspect, left and top of a crop."""


def draws(step: Step) -> FloatArray:
    """Uniform in [0, 1), shape (this process's rows, DRAWS); an image's depend on its place in the global batch."""
    rng = np.random.default_rng([*step.seed, _AUGMENTATION])
    return rng.random((len(step.indices), DRAWS))[step.rows]


def moves(augmentation: Augmentation, drawn: FloatArray) -> IntArray:
    """Row offset and column offset in [0, 2 * shift] and whether mirrored, of each image: shape (n, 3)."""
    offsets = np.floor(drawn[:, :2] * (2 * augmentation.shift + 1))
    mirrored = (drawn[:, 2:3] < 0.5) & augmentation.flip
    return np.concatenate([offsets, mirrored], axis=1).astype(np.int64)


def moved(images: Tensor, moves: Tensor, augmentation: Augmentation) -> Tensor:
    """Mirror images and cut them out of their zero-padded selves; shape, dtype and device unchanged.

    Args:
        images: Shape (n, channels, height, width).
        moves: Shape (n, 3), as `moves` gives them, on the same device.
        augmentation: Its `shift` is the padding.
    """
    if not (augmentation.shift or augmentation.flip):
        return images
    count, channels, height, width = images.shape
    row, column, mirrored = moves.unbind(1)
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    columns = torch.where(mirrored[:, None] > 0, width - 1 - columns, columns) + column[:, None]
    pixels = (rows + row[:, None])[:, :, None] * (width + 2 * augmentation.shift) + columns[:, None, :]
    padded = F.pad(images, (augmentation.shift,) * 4).flatten(2)
    return padded.gather(2, pixels.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


def on_device(values: IntArray, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def in_unit_range(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; float32 as it is."""
    return images if images.dtype == torch.float32 else images.to(torch.float32).div_(255)

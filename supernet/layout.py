"""The layout of images in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(images: Tensor) -> Tensor:
    """The same images with their channels innermost, shape unchanged; a CPU convolves them twice as fast.

    Torch calls images of one channel both layouts at once, leaves them as they are, and then computes whole networks
    in the slow one; their strides have to say which it is. What is no image, shape (n, features), stays as it is.
    """
    if images.dim() != 4:
        return images
    _, channels, height, width = images.shape
    strides = (channels * height * width, 1, width * channels, channels)
    return images.contiguous(memory_format=torch.channels_last).as_strided(images.shape, strides)

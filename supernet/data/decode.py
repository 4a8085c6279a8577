"""Image files to bytes of one size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.errors import NasError
from nas.genotype import FloatArray

_ASPECTS = (3 / 4, 4 / 3)
_CENTRE = 0.875
"""Side of the centre crop over the image's shorter side: 224 of 256."""

Box = tuple[float, float, float, float]


def decoded(path: Path, size: int, crop: float, drawn: FloatArray) -> NDArray[Any]:
    """Read an image, cut a part out and scale it (bilinear, antialiased) to bytes of shape (3, size, size).

    Args:
        path: Any format and colours that Pillow reads.
        size: Height and width of the result.
        crop: Least share of the area that a random crop keeps; 0: the centre, as for evaluation.
        drawn: Four uniform numbers that place the random crop.

    Raises:
        NasError: The file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            box = random_box(*image.size, crop, drawn) if crop else centre_box(*image.size)
            pixels = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise NasError(f"{path} cannot be read as an image: {error}. Fetch it again, or remove it") from error
    return np.asarray(pixels).transpose(2, 0, 1)


def centre_box(width: int, height: int) -> Box:
    """The square in the middle: left, upper, right and lower edge, in pixels."""
    side = _CENTRE * min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def random_box(width: int, height: int, least: float, drawn: FloatArray) -> Box:
    """A part of area share U(least, 1) and log aspect ratio U(3/4, 4/3), at a uniform place; cut off at the edges."""
    area = width * height * (least + (1 - least) * drawn[0])
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    aspect = math.exp(low + (high - low) * drawn[1])
    wide, high = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
    left, upper = drawn[2] * (width - wide), drawn[3] * (height - high)
    return left, upper, min(width, left + wide), min(height, upper + high)

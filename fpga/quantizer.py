"""The quantizer that hls4ml's exactness pass has to leave alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

CLASS_NAME = "DeclaredFormatQuantizer"


@functools.cache
def register_quantizer() -> None:
    """Teach hls4ml a quantizer that keeps the format it was given.

    hls4ml 1.3 narrows a quantizer to the bits its input can hold, which is wrong twice. Where the input has
    fewer fraction bits, the largest value 2^i - 2^-f shrinks with f, so values saturate too low. And it takes width
    and integer bits of a whole tensor as two separate maxima, which loses bits where channels are unlike.
    """
    from hls4ml.model.layers import register_layer
    from hls4ml.model.optimizer.passes import bit_exact, hgq_proxy_model

    # hls4ml finds a layer's code template by the name of its class.
    kept = type("FixedPointQuantizer", (hgq_proxy_model.FixedPointQuantizer,), {"__module__": __name__})
    register_layer(CLASS_NAME, kept)
    bit_exact._produce_kif.register(kept)(_declared_format)


def _declared_format(layer: Any) -> tuple[Any, ...]:
    """Sign, integer and fraction bits of every element."""
    sign, width, integer = (mask.ravel()[0] for mask in layer.mask_kbi)
    shape = tuple(layer.get_output_variable().shape)
    return tuple(np.full(shape, bits, dtype=np.int16) for bits in (sign, integer - sign, width - integer))

"""The sum of all pairs as a layer of hls4ml, which has none, by its extension interface."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASS_NAME = "PairSum"

_HEADER = Path(__file__).parent / "nnet_pair_sum.h"

_CONFIG = """struct config{index} {{
    static const unsigned n_rows = {n_rows};
    static const unsigned n_chan = {n_chan};
}};\n"""

_CALL = "nnet::pair_sum<{first_t}, {second_t}, {output_t}, {config}>({first}, {second}, {output});"


@functools.cache
def register_pair_sum() -> None:
    """Teach hls4ml the layer: its shape, its C++ (`nnet_pair_sum.h`, copied into projects) and its exact formats."""
    from hls4ml.backends import get_backend
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model import layers
    from hls4ml.model.optimizer.passes import bit_exact

    layer = type(CLASS_NAME, (layers.Layer,), {"initialize": _initialize, "__module__": __name__})
    layers.register_layer(CLASS_NAME, layer)
    bit_exact._produce_kif.register(layer)(_formats)
    config = _template(LayerConfigTemplate, lambda self, node: _CONFIG.format(**self._default_config_params(node)))
    call = _template(FunctionCallTemplate, _call)
    backend = get_backend("Vitis")
    backend.register_source(_HEADER)
    backend.register_template(functools.partial(config, layer))
    backend.register_template(functools.partial(call, layer, include_header=[f"nnet_utils/{_HEADER.name}"]))


def _template(kind: Any, code: Callable[[Any, Any], str]) -> Any:
    """One of hls4ml's kinds of templates, whose text `code` gives."""
    return type(f"{CLASS_NAME}{kind.__name__}", (kind,), {"format": code})


def _call(template: Any, layer: Any) -> str:
    first, second = (layer.get_input_variable(name) for name in layer.inputs)
    inputs = {"first": first.name, "second": second.name, "first_t": first.type.name, "second_t": second.type.name}
    return _CALL.format(**template._default_function_params(layer), **inputs)


def _initialize(layer: Any) -> None:
    rows, _, channels = layer.get_input_variable().shape
    layer.add_output_variable([rows, rows, channels])


def _formats(layer: Any) -> tuple[Any, ...]:
    """Sign, integer and fraction bits of every sum, each of shape (n, n, channels)."""
    from hls4ml.model.optimizer.passes.bit_exact import get_input_kifs
    from hls4ml.utils.qinterval import QIntervalArray

    first, second = get_input_kifs(layer)
    row = (bits.transpose(1, 0, 2) for bits in second)
    sign, integer, fraction = (QIntervalArray.from_kif(*first) + QIntervalArray.from_kif(*row)).to_kif()
    return sign.astype(np.int16), integer, fraction

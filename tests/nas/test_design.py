from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.network import Input, Linear, Network, Precision

NETWORK = Network(
    (
        Input("input", (3,)),
        Linear("fc", ("input",), (3,), (2,), precision=Precision(4, 4)),
        Linear("head", ("fc",), (2,), (2,)),
    )
)
INTEGERS = np.array([[1, -7, 0], [3, 0, 7]])
NUMBERS = {
    "fc": LayerNumbers(
        FixedPoint(False, 4, 2), INTEGERS / np.array([[8.0], [2.0]]), np.array([5 / 32, -3 / 8]), np.array([3, 1])
    ),
    "head": LayerNumbers(None, np.ones((2, 2)), np.zeros(2)),
}


def test_integers_come_back() -> None:
    design = Design(NETWORK, NUMBERS)
    assert np.array_equal(design.weight_integers("fc"), INTEGERS)
    assert design.product_frac("fc").tolist() == [5, 3]
    assert design.bias_integers("fc").tolist() == [5, -3]
    assert design.nonzeros("fc") == 4
    assert design.nonzeros("head") == 4


def changed(**fields: object) -> Mapping[str, LayerNumbers]:
    return NUMBERS | {"fc": replace(NUMBERS["fc"], **fields)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"fc": NUMBERS["fc"]}, "layer head: the design has no numbers for it"),
        (changed(weight=None), r"layer fc: needs a bias and weights of shape \(2, 3\)"),
        (changed(bias=None), "layer fc: needs a bias"),
        (changed(weight=np.ones((3, 2))), r"weights of shape \(2, 3\)"),
    ],
)
def test_a_design_is_complete(numbers: Mapping[str, LayerNumbers], message: str) -> None:
    with pytest.raises(NasError, match=message):
        Design(NETWORK, numbers)


def test_numbers_off_the_grid_are_found() -> None:
    with pytest.raises(NasError, match=r"layer fc: weight: values are off their grid by up to 0.5 steps"):
        Design(NETWORK, changed(weight=np.full((2, 3), 1 / 16))).weight_integers("fc")
    with pytest.raises(NasError, match="layer fc: bias: values are off their grid"):
        Design(NETWORK, changed(bias=np.array([1 / 64, 0.0]))).bias_integers("fc")


def test_a_float_layer_has_no_integers() -> None:
    design = Design(NETWORK, NUMBERS)
    with pytest.raises(NasError, match="layer head: has no quantized weights"):
        design.weight_integers("head")
    with pytest.raises(NasError, match="layer head: is not quantized"):
        design.product_frac("head")

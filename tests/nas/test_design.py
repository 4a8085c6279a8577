from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.affine import Affine
from nas.design import Design, LayerNumbers, load_design, save_design
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


FREE = NUMBERS | {
    "fc": LayerNumbers(
        Affine(4, -3, 0.75),
        INTEGERS * np.array([[0.625], [0.3125]]),
        np.array([5 * 0.625 * 0.75, -3 * 0.3125 * 0.75]),
        weight_steps=np.array([0.625, 0.3125]),
    )
}


def test_free_steps_give_integers_and_no_fraction_bits() -> None:
    design = Design(NETWORK, FREE)
    assert np.array_equal(design.weight_integers("fc"), INTEGERS)
    assert design.product_steps("fc").tolist() == [0.625 * 0.75, 0.3125 * 0.75]
    assert design.bias_integers("fc").tolist() == [5, -3]
    with pytest.raises(NasError, match=r"layer fc: has steps up to 0\.46875; fixed point needs powers of two"):
        design.product_frac("fc")


@pytest.mark.parametrize("numbers", [NUMBERS, FREE])
def test_a_saved_design_comes_back(numbers: Mapping[str, LayerNumbers], tmp_path: Path) -> None:
    save_design(Design(NETWORK, numbers), tmp_path / "design.npz")
    read = load_design(NETWORK, tmp_path / "design.npz")
    for name, one in numbers.items():
        assert read.numbers[name].act == one.act
        for key in ("weight", "bias", "weight_frac", "weight_steps"):
            assert np.array_equal(getattr(read.numbers[name], key), getattr(one, key))

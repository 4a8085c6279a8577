import random
import re

import pytest

from experiments.units import BYTES, COUNT, ENERGY, FRACTION, FREQUENCY, TIME, Dimension, dimension_of, quantity
from nas.errors import NasError


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("5 ms", TIME, 5e-3),
        ("100 us", TIME, 1e-4),
        ("100µs", TIME, 1e-4),
        ("40 ns", TIME, 4e-8),
        ("2 s", TIME, 2.0),
        ("10 %", FRACTION, 0.1),
        ("512 KiB", BYTES, 524288.0),
        ("1.5 MB", BYTES, 1.5e6),
        ("200 MHz", FREQUENCY, 2e8),
        ("2 mJ", ENERGY, 2e-3),
        ("3e-4", TIME, 3e-4),
        (40000, COUNT, 40000.0),
        (0.1, FRACTION, 0.1),
    ],
)
def test_reads_si(text: object, dimension: Dimension, value: float) -> None:
    assert quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("5 MB", TIME),
        ("5 ms", BYTES),
        ("10 %", COUNT),
        ("5 Ms", TIME),
        ("5 ms", COUNT),
        ("fast", TIME),
        ("", TIME),
        ("5 ms or so", TIME),
        ("1e999 s", TIME),
        (float("nan"), TIME),
        (float("inf"), COUNT),
        (True, COUNT),
        (None, COUNT),
        ([5], TIME),
    ],
)
def test_refuses_what_does_not_fit(text: object, dimension: Dimension) -> None:
    expected = f"must be {dimension.name}, such as {dimension.examples}; got {text!r}"
    with pytest.raises(NasError, match=re.escape(expected)):
        quantity(text, dimension)


def test_a_metric_says_what_it_measures() -> None:
    metrics = {"error": FRACTION, "latency_s": TIME, "weight_bytes": BYTES, "clock_hz": FREQUENCY, "energy_j": ENERGY}
    assert {name: dimension_of(name) for name in metrics} == metrics
    assert all(dimension_of(name) is COUNT for name in ("lut", "ff", "dsp", "bram"))


def test_a_plain_number_and_its_text_are_that_number() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        number = rng.uniform(-10, 10) * 10.0 ** rng.randint(-300, 300)
        assert number == quantity(number, COUNT) == quantity(str(number), COUNT) == quantity(f"{number} s", TIME)

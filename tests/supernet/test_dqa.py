"""DQA against fixed point, exact arithmetic and brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, some_images, some_networks, supernet_of
from torch import Tensor

from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize
from nas.network import Network
from nas.spaces.precision import PrecisionChoices
from supernet.dqa import (
    DqaFormat,
    PostQuantized,
    decode,
    dqa,
    dqa_format,
    encode,
    huffman_lengths,
    stored_bits,
)
from supernet.formats import act_format
from supernet.quantize import quantize_act

CHANNELS = 12


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def activations(positive: bool, *shape: int) -> Tensor:
    """Channels of different sizes, with heavy tails."""
    rng = np.random.default_rng(len(shape))
    values = rng.standard_t(4, (40, CHANNELS, *shape)) * 2.0 ** rng.uniform(-3, 1, (1, CHANNELS, *(1 for _ in shape)))
    return torch.from_numpy(np.maximum(values, 0) if positive else values)


@pytest.mark.parametrize("shape", [(), (5, 3)])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(("bits", "extra"), [(3, 1), (3, 3), (4, 2), (5, 3)])
def test_a_reader_gets_fixed_point_of_more_bits_in_important_channels(
    shape: tuple[int, ...], positive: bool, bits: int, extra: int
) -> None:
    x = activations(positive, *shape)
    fmt = dqa_format(x, bits, extra, 0.4)
    read, _ = dqa(x, bits, extra, 0.4)
    assert int(fmt.important.sum()) == 5
    for channel, important in enumerate(fmt.important.tolist()):
        each = fmt.wide if important else fmt.narrow
        expected = quantize(x[:, channel].numpy(), each) * each.step
        assert np.array_equal(read[:, channel].numpy(), expected)
    assert (fmt.wide.bits, fmt.wide.step) == (bits + extra, fmt.narrow.step / 2**extra)


@pytest.mark.parametrize("positive", [True, False])
def test_what_is_stored_fits_the_bits_it_is_said_to_take(positive: bool) -> None:
    """Integers of `bits` bits in every channel; the rest, written out in its codes, is as long as is said."""
    x = activations(positive, 4)
    fmt = dqa_format(x, 3, 2, 0.5)
    stored = encode(x, fmt)
    assert stored.integers.min() >= fmt.narrow.low
    assert stored.integers.max() <= fmt.narrow.high
    assert stored.errors.min() == 0
    assert stored.errors.max() == 3
    assert not stored.errors[:, ~fmt.important].any()
    codes = prefix_code(fmt.code_bits.tolist())
    written = "".join(codes[error] for error in stored.errors[:, fmt.important].flatten().tolist())
    assert stored_bits(stored, fmt) == pytest.approx(3 + len(written) / x.numel())
    assert read_back(written, codes) == stored.errors[:, fmt.important].flatten().tolist()
    _, mean = dqa(x, 3, 2, 0.5)
    assert mean == stored_bits(stored, fmt)
    assert 3.5 <= mean <= 4.0  # a symbol takes at least a bit, and no more than the two that it has


def prefix_code(lengths: Sequence[int]) -> dict[int, str]:
    """The canonical code of these lengths."""
    codes: dict[int, str] = {}
    value = last = 0
    for symbol in sorted(range(len(lengths)), key=lambda symbol: (lengths[symbol], symbol)):
        value <<= lengths[symbol] - last
        last = lengths[symbol]
        codes[symbol] = f"{value:0{last}b}"
        value += 1
    return codes


def read_back(written: str, codes: dict[int, str]) -> list[int]:
    symbols, found, start = {code: symbol for symbol, code in codes.items()}, [], 0
    for end in range(1, len(written) + 1):
        if written[start:end] in symbols:
            found.append(symbols[written[start:end]])
            start = end
    assert start == len(written)
    return found


@pytest.mark.parametrize("symbols", [2, 3, 4, 5])
def test_codes_are_the_shortest_that_can_be_told_apart(symbols: int) -> None:
    rng = np.random.default_rng(symbols)
    possible = [
        lengths
        for lengths in itertools.product(range(1, symbols), repeat=symbols)
        if sum(2.0**-length for length in lengths) <= 1  # Kraft
    ] or [(1, 1)]
    for _ in range(30):
        counts = np.ceil(rng.pareto(0.7, symbols) + 0.01).astype(int).tolist()
        lengths = huffman_lengths(counts)
        assert sum(2.0**-length for length in lengths) == 1
        assert np.dot(counts, lengths) == min(np.dot(counts, option) for option in possible)


@pytest.mark.parametrize("positive", [True, False])
def test_the_format_has_the_least_error_over_ranges_and_channels(positive: bool) -> None:
    """Brute force over the ranges and, for each, over all sets of important channels."""
    x = activations(positive, 3)[:, :6]
    for bits, extra, count in ((3, 2, 2), (4, 1, 3), (3, 3, 0), (4, 2, 6)):
        fmt = dqa_format(x, bits, extra, count / 6)
        coarsest = act_format([x], bits, "minmax")
        assert coarsest is not None
        options = [
            DqaFormat(FixedPoint(coarsest.signed, bits, coarsest.frac_bits + more), extra, mask(chosen), fmt.code_bits)
            for more in range(-1, 4)
            for chosen in itertools.combinations(range(6), count)
        ]
        assert error_of(x, fmt) == pytest.approx(min(error_of(x, option) for option in options), rel=1e-12)


def mask(chosen: tuple[int, ...]) -> Tensor:
    return torch.tensor([channel in chosen for channel in range(6)])


def error_of(x: Tensor, fmt: DqaFormat) -> float:
    return float((decode(encode(x, fmt), fmt, x.dtype) - x).square().sum())


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_without_important_channels_it_is_direct_and_with_all_it_is_wider(bits: int) -> None:
    x = activations(False, 4)
    read, mean = dqa(x, bits, 2, 0.0)
    assert mean == bits
    assert torch.equal(read, quantize_act(x, dqa_format(x, bits, 2, 0.0).narrow))
    direct, wider = act_format([x], bits), act_format([x], bits + 2)
    assert float((read - x).square().sum()) <= float((quantize_act(x, direct) - x).square().sum())
    read, mean = dqa(x, bits, 2, 1.0)
    assert float((read - x).square().sum()) <= float((quantize_act(x, wider) - x).square().sum())
    assert bits + 1 <= mean <= bits + 2
    shares = [float((dqa(x, bits, 2, count / CHANNELS)[0] - x).square().sum()) for count in range(CHANNELS + 1)]
    assert shares == sorted(shares, reverse=True)


def test_shares_are_rounded_half_up_and_arguments_out_of_range_are_refused() -> None:
    x = activations(True)
    assert [int(dqa_format(x[:, :1], 3, 1, share).important.sum()) for share in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    for bits, extra, share in ((32, 1, 0.5), (3, 0, 0.5), (3, 1, -0.1), (3, 1, 1.1), (3, 1, math.nan)):
        with pytest.raises(NasError, match=rf"extra at least 1 and the share in \[0, 1\]; got {bits}, {extra} and"):
            dqa_format(x, bits, extra, share)


def float_network(name: str) -> tuple[Network, PostQuantized, Tensor]:
    space = EXAMPLES[name](FLOATS)
    network = some_networks(space, 1, 3)[0].as_float()
    images = some_images(space, 16, 3)
    subnet = supernet_of(space, 3).specialise(network, images)
    return network, PostQuantized(subnet, images, lambda x: None), images


def test_float_formats_leave_a_subnet_as_it_is(example: str) -> None:
    _, model, images = float_network(example)
    assert torch.equal(model(images), model.subnet(images))
    assert model.stored_bits(images) == 32


def test_direct_formats_give_what_the_supernet_gives(example: str) -> None:
    """The same network with its activations quantized in the supernet, where the batch is the calibration's."""
    space = EXAMPLES[example](PrecisionChoices((32,), (4,)))
    supernet, images = supernet_of(space, 5), some_images(space, 16, 5)
    network = some_networks(space, 1, 5)[0]
    quantized = supernet.specialise(network, images)
    model = PostQuantized(quantized, images, lambda x: act_format([x], 4))
    assert model.stored_bits(images) == 4
    torch.testing.assert_close(model(images), quantized(images))


def test_more_bits_come_closer_to_float(example: str) -> None:
    _, exact, images = float_network(example)
    far = []
    for bits in (3, 8):
        for share in (0.0, 1.0):
            model = PostQuantized(
                exact.subnet, images, partial(dqa_format, bits=bits, extra=2, share_of_important_channels=share)
            )
            far.append(float((model(images) - exact(images)).detach().square().mean()))
            assert bits + share <= model.stored_bits(images) <= bits + 2 * share
    assert far[2] < far[0]
    assert far[3] < far[1]
    assert far[3] < far[0]

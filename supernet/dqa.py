"""Activations of 3 to 5 bits whose important channels keep more: Hu, Henderson & Cano, "DQA: An Efficient Method for
Deep Quantization of Deep Neural Network Activations" (2024, arXiv 2412.09687).

An important channel is rounded to `bits + extra` bits, of which the last `extra` are shifted away, so that every
channel is held in `bits` bits; the bits shifted away, the shifting error, are kept beside them in a Huffman code, and a
reader puts both together: ((integer << extra) + error) * step. Those codes are storage too, and are counted.

Importance is the squared error that the extra bits save, and the range is chosen for the least squared error that is
left then; the paper ranks channels by the accuracy that each of them alone costs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.network import FLOAT_BITS, Scale, Weighted
from supernet.formats import act_format
from supernet.quantize import quantize_act
from supernet.run import Reader, combine
from supernet.subnet import Subnet
from supernet.trie import merge, run_all

_CANDIDATES = 4


@dataclass(frozen=True, eq=False)
class DqaFormat:
    """How one tensor of shape (n, channels, ...) is held.

    Attributes:
        narrow: The format of unimportant channels.
        extra: Bits of an important channel that are shifted away.
        important: Which channels are, shape (channels,), bool.
        code_bits: Length of the Huffman code of each shifting error, shape (2**extra,).
    """

    narrow: FixedPoint
    extra: int
    important: Tensor
    code_bits: Tensor

    @property
    def wide(self) -> FixedPoint:
        """The format of important channels: the same range in steps 2**extra times as fine."""
        return FixedPoint(self.narrow.signed, self.narrow.bits + self.extra, self.narrow.frac_bits + self.extra)


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor as it is held: integers of `bits` bits, and the bits shifted away, 0 in unimportant channels."""

    integers: Tensor
    errors: Tensor


ActFormat = FixedPoint | DqaFormat | None
"""A format in which a layer may read: direct, DQA's or float."""


@torch.no_grad()
def dqa(activations: Tensor, bits: int, extra: int, share_of_important_channels: float) -> tuple[Tensor, float]:
    """Activations as a reader gets them, in their own shape, and the mean bits that each is stored in.

    Both by the format that suits these very activations; arguments and errors as in `dqa_format`.
    """
    fmt = dqa_format(activations, bits, extra, share_of_important_channels)
    stored = encode(activations, fmt)
    return decode(stored, fmt, activations.dtype), stored_bits(stored, fmt)


@torch.no_grad()
def dqa_format(activations: Tensor, bits: int, extra: int, share_of_important_channels: float) -> DqaFormat:
    """The format of the least squared error on samples: its range, its important channels and their code.

    Args:
        activations: Shape (n, channels, ...).
        bits: Of every activation.
        extra: Bits more in important channels.
        share_of_important_channels: In [0, 1]; their number is rounded half up.

    Raises:
        NasError: An argument is out of range.
    """
    first, share = act_format([activations], bits, "minmax"), share_of_important_channels
    if first is None or extra < 1 or not 0 <= share <= 1:
        raise NasError(
            f"DQA: bits must be below {FLOAT_BITS}, extra at least 1 and the share in [0, 1]; "
            f"got {bits}, {extra} and {share:g}"
        )
    count = math.floor(share * activations.shape[1] + 0.5)
    found: list[tuple[float, FixedPoint, Tensor]] = []
    for more in range(_CANDIDATES):
        narrow = FixedPoint(first.signed, bits, first.frac_bits + more)
        wide = FixedPoint(first.signed, bits + extra, narrow.frac_bits + extra)
        left, least = _channel_errors(activations, narrow), _channel_errors(activations, wide)
        important = torch.zeros(len(left), dtype=torch.bool, device=left.device)
        important[torch.argsort(left - least, descending=True, stable=True)[:count]] = True
        found.append((float(torch.where(important, least, left).sum()), narrow, important))
    _, narrow, important = found[min(range(len(found)), key=lambda place: found[place][0])]
    uncoded = DqaFormat(narrow, extra, important, torch.zeros(1 << extra))
    errors = encode(activations, uncoded).errors[:, important]
    counts = torch.bincount(errors.flatten(), minlength=1 << extra) + 1  # what samples lack needs a code, too
    code_bits = torch.tensor(huffman_lengths(counts.tolist()), device=important.device)
    return DqaFormat(narrow, extra, important, code_bits)


def encode(activations: Tensor, fmt: DqaFormat) -> Stored:
    """What is stored of activations of shape (n, channels, ...)."""
    important = _along_channels(fmt.important, activations)
    narrow, wide = _integers(activations, fmt.narrow), _integers(activations, fmt.wide)
    integers = torch.where(important, wide >> fmt.extra, narrow)
    return Stored(integers, torch.where(important, wide & ((1 << fmt.extra) - 1), 0))


def decode(stored: Stored, fmt: DqaFormat, dtype: torch.dtype) -> Tensor:
    """Activations as a reader gets them, in the shape of what is stored."""
    important = _along_channels(fmt.important, stored.integers)
    whole = ((stored.integers << fmt.extra) + stored.errors).to(dtype) * fmt.wide.step
    return torch.where(important, whole, stored.integers.to(dtype) * fmt.narrow.step)


def stored_bits(stored: Stored, fmt: DqaFormat) -> float:
    """Mean bits of an activation: its integer, and in important channels the code of its shifting error."""
    codes = fmt.code_bits[stored.errors[:, fmt.important]].sum()
    return fmt.narrow.bits + float(codes) / stored.integers.numel()


def huffman_lengths(counts: Sequence[int]) -> list[int]:
    """Length of each symbol's code in an optimal prefix code (Huffman 1952); at least two symbols, counts positive."""
    lengths = [0] * len(counts)
    heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, _, left), (other, tie, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (one + other, tie, left + right))
    return lengths


class PostQuantized(nn.Module):
    """A float subnet whose layers read their inputs in formats calibrated after training; nothing is tuned further.

    As elsewhere, a layer has one format for all that it reads, and a scale reads its gates as they come.
    """

    @torch.no_grad()
    def __init__(self, subnet: Subnet, images: Tensor, suits: Callable[[Tensor], ActFormat]) -> None:
        """Calibrate layer by layer, each on what the formats before it have left.

        Args:
            subnet: A network whose activations are float.
            images: Samples, shape (n, *input shape).
            suits: The format for samples of a layer's inputs, shape (n, channels, ...).
        """
        super().__init__()
        self.subnet, self.walk = subnet, merge([subnet.network])
        self.formats: dict[int, ActFormat] = {}

        def calibrated(place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
            self.formats[place] = suits(torch.cat(_formatted(layer, inputs)))
            return self._output(place, layer, inputs)

        for _ in run_all(self.walk, images, calibrated):
            pass

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (n, classes)."""
        ((_, logits),) = run_all(self.walk, images, self._output)
        return logits

    @torch.no_grad()
    def stored_bits(self, images: Tensor) -> float:
        """Mean bits of an activation over all that layers read of these images."""
        values, bits = 0, 0.0

        def counted(place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
            nonlocal values, bits
            for x in _formatted(layer, inputs):
                values += x.numel()
                bits += x.numel() * _bits(x, self.formats[place])
            return self._output(place, layer, inputs)

        for _ in run_all(self.walk, images, counted):
            pass
        return bits / values

    def _output(self, place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
        read = [_read(x, self.formats[place]) for x in _formatted(layer, inputs)]
        if not isinstance(layer, Weighted):
            return combine(layer, read + inputs[len(read) :], None)
        output: Tensor = self.subnet.layer(layer.name)(read[0])
        return output


def _formatted(layer: Reader, inputs: list[Tensor]) -> list[Tensor]:
    return inputs[:1] if isinstance(layer, Scale) else inputs


def _read(x: Tensor, fmt: ActFormat) -> Tensor:
    return decode(encode(x, fmt), fmt, x.dtype) if isinstance(fmt, DqaFormat) else quantize_act(x, fmt)


def _bits(x: Tensor, fmt: ActFormat) -> float:
    if isinstance(fmt, DqaFormat):
        return stored_bits(encode(x, fmt), fmt)
    return FLOAT_BITS if fmt is None else fmt.bits


def _integers(activations: Tensor, fmt: FixedPoint) -> Tensor:
    return torch.clamp(torch.floor(activations / fmt.step + 0.5), fmt.low, fmt.high).to(torch.int64)


def _channel_errors(activations: Tensor, fmt: FixedPoint) -> Tensor:
    """Squared error of each channel, shape (channels,)."""
    return (quantize_act(activations, fmt) - activations).square().transpose(0, 1).flatten(1).sum(1)


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (x.dim() - 2))

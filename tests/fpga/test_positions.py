"""Designs in pieces: what the pieces compute and take together is what the whole does."""

from __future__ import annotations

import numpy as np
import pytest
from designs import mobile_network, random_design, random_images

from fpga import reference
from fpga.positions import pieces
from fpga.synthesis import estimated
from nas.design import Design
from nas.network import Network
from nas.spaces.deepsets import DeepsetsChoices, Tower
from nas.spaces.precision import PrecisionChoices


def sets(seed: int, particles: int = 4) -> Design:
    precision = PrecisionChoices((3, 4, 6), (4, 6), (0.5, 0.0))
    space = DeepsetsChoices(Tower((2,), (6, 8)), Tower((1,), (8,)), (), precision).build((3, particles, 1), 5)
    rng = np.random.default_rng(seed)
    network: Network = space.lower([int(rng.integers(len(gene.choices))) for gene in space.genes])
    return random_design(network, seed)


@pytest.mark.parametrize("seed", range(5))
def test_the_pieces_compute_what_the_whole_does(seed: int) -> None:
    design = sets(seed)
    (one, count), (rest, once) = pieces(design)
    assert (count, once) == (4, 1)
    images = random_images(design.network, 50, seed)
    read = np.stack([reference.run(one, images[:, :, [place]]) for place in range(count)], axis=2)
    assert np.array_equal(reference.run(rest, read[..., None]), reference.run(design, images))


@pytest.mark.parametrize("seed", range(2))
def test_the_pieces_take_at_least_what_the_whole_does(seed: int) -> None:
    design = sets(seed)
    parts = [(estimated(part), count) for part, count in pieces(design)]
    together = sum(count * (report.lut or 0) for report, count in parts)
    whole = estimated(design).lut or 0
    assert 0.99 * whole < together < 1.15 * whole


def test_what_is_no_set_stays_whole() -> None:
    design = random_design(mobile_network(0), 0)
    assert pieces(design) == [(design, 1)]

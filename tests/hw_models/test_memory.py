"""The peak of a whole population against brute force on lowered networks, whatever the space."""

import numpy as np
import pytest

from hw_models.memory import peak_cost, peak_memory_bytes
from nas.genotype import SearchSpace, canonical, choice_counts, random_population
from nas.network import Input, Network
from nas.spaces import DeepsetsChoices, InteractionChoices, MlpChoices, MobileChoices, ResnetChoices
from nas.spaces.deepsets import Tower
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices
from nas.spaces.resnet import ResnetStage
from nas.tables import layer_tables

BITS = PrecisionChoices((4, 8), (4, 8, 16))
SPACES: dict[str, SearchSpace] = {
    "mlp": MlpChoices((1, 2, 4), (2, 3, 5), BITS).build((2, 3), 3),
    "mobile": MobileChoices(
        8, (Stage(12, 1, (1, 2)), Stage(12, 1, (2, 3)), Stage(16, 2, (1, 3))), (3, 5), (2, 3.5, 4), BITS
    ).build((1, 8, 8), 3),
    "mobile, squeezed at two resolutions": MobileChoices(
        4,
        (Stage(4, 1, (1,), (3,), (1,), "relu", True), Stage(6, 2, (1, 2), (), (), "hswish", True)),
        (1, 3),
        (1, 2),
        BITS,
        stem_stride=2,
        resolution=(8, 6),
        final=4,
        features=5,
    ).build((1, 8, 8), 3),
    "resnet": ResnetChoices(
        6,
        (ResnetStage(6, 1, (1, 2)), ResnetStage(8, 2, (1, 3))),
        (0.5, 1),
        (0.5, 1),
        BITS,
        stem_depth=(0, 1),
        divisor=1,
    ).build((1, 8, 8), 3),
    "deepsets": DeepsetsChoices(Tower((1, 2), (2, 3)), Tower((1, 2), (2, 3)), (2, 4), BITS).build((3, 4, 1), 2),
    "interaction": InteractionChoices(Tower((1, 2), (2, 3)), Tower((1, 2), (2,)), (2, 4), BITS).build((3, 4, 1), 2),
}


def by_hand(network: Network) -> float:
    """Run the layers one by one; a tensor is dropped once no layer to come reads it."""
    held, most = dict[str, float](), 0.0
    for index, now in enumerate(network):
        to_come = network.layers[index + 1 :]
        bits = [r.precision.act_bits for r in to_come if not isinstance(r, Input) and now.name in r.inputs]
        held[now.name] = np.prod(now.out_shape) * max(bits, default=32) / 8
        most = max(most, sum(held.values()))
        held = {name: size for name, size in held.items() if any(name in reader.inputs for reader in to_come)}
    return most


@pytest.mark.parametrize("name", SPACES)
def test_the_peak_of_a_population_is_that_of_its_lowered_networks(name: str) -> None:
    space = SPACES[name]
    cost = peak_cost(space, layer_tables(space))
    counts = choice_counts(space)
    corners = canonical(space, np.array([counts * 0, counts - 1]))
    population = np.concatenate([random_population(space, 300, np.random.default_rng(0)), corners])
    networks = [space.lower(row) for row in population.tolist()]
    brute = [by_hand(network) for network in networks]
    assert [peak_memory_bytes(network) for network in networks] == brute
    assert cost(population).tolist() == brute
    assert len(set(brute)) > 5


def test_layers_that_are_never_the_peak_are_left_out() -> None:
    space = SPACES["mobile"]
    tables = layer_tables(space)
    assert 0 < len(peak_cost(space, tables).stages) < len(tables)

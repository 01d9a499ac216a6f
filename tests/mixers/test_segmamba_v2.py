import itertools

import pytest
import torch

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles


def order(size, axes):
    """Numbers of the voxels with `axes`, places in memory, from slow to fast."""
    numbers = torch.arange(torch.Size(size).numel()).view(size).tolist()
    found = []
    for steps in itertools.product(*(range(size[axis]) for axis in axes)):
        place = numbers
        for axis in range(len(size)):
            place = place[steps[axes.index(axis)]]
        found.append(place)
    return found


PUBLISHED = [(0, 1, 2), (1, 0, 2), (2, 1, 0)]  # (a, b, c), (b, a, c), (c, b, a)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (3, 1, 2)])
def test_the_stock_layer_runs_over_three_orders_with_one_set_of_weights(size):
    mixer, x = make_mixer("segmamba_v2", 6, 3), make_map(2, *size, 6)
    branches = [("", order(size, axes)) for axes in PUBLISHED]

    assert_matches(mixer, x, lambda x, weights: oracles.branched(x, weights, branches))


def test_in_2d_each_axis_is_fast_once():
    mixer, x = make_mixer("segmamba_v2", 6, 2), make_map(2, 3, 4, 6)
    branches = [("", order((3, 4), axes)) for axes in [(0, 1), (1, 0)]]

    assert_matches(mixer, x, lambda x, weights: oracles.branched(x, weights, branches))


def test_parameters_are_those_of_the_stock_layer():
    v2, stock = (make_mixer(name, 6, 3) for name in ("segmamba_v2", "mamba"))

    assert list(v2.state_dict()) == list(stock.state_dict())


def test_it_is_the_stock_layer_on_permuted_maps_summed():
    v2, stock, x = make_mixer("segmamba_v2", 6, 3), make_mixer("mamba", 6, 3), make_map(2, 2, 3, 4, 6)
    v2.load_state_dict(stock.state_dict())

    expected = stock(x) + stock(x.transpose(1, 2)).transpose(1, 2) + stock(x.transpose(1, 3)).transpose(1, 3)

    torch.testing.assert_close(v2(x), expected)

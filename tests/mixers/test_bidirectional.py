from math import prod

import pytest
import torch
from torch.nn import functional as F

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles
from umamba_seg.mixers import create
from umamba_seg.mixers.branches import DELTA_MAX, DELTA_MIN


def both_ways(x, weights, suffix="_b"):
    forwards = list(range(prod(x.shape[1:-1])))
    return oracles.branched(x, weights, [("", forwards), (suffix, forwards[::-1])])


@pytest.mark.parametrize("size", [(1,), (5,), (3, 4), (2, 3, 2), (1, 4, 1)])
def test_each_direction_has_parameters_of_its_own(size):
    assert_matches(make_mixer("bidirectional", 6, len(size)), make_map(2, *size, 6), both_ways)


def test_directions_may_share_all_parameters():
    mixer = make_mixer("bidirectional", 6, 2, shared=True, states=3)

    assert_matches(mixer, make_map(1, 3, 4, 6), lambda x, weights: both_ways(x, weights, suffix=""))
    assert list(mixer.state_dict()) == list(create("mamba", 6, spatial_dims=2).state_dict())


def test_the_sum_may_be_halved():
    mixer = make_mixer("bidirectional", 6, 2, divide_out=True)

    assert_matches(mixer, make_map(1, 3, 4, 6), lambda x, weights: both_ways(x, weights) / 2)


def test_sharing_makes_flipped_maps_give_flipped_results():
    mixer, x = make_mixer("bidirectional", 6, 3, shared=True), make_map(1, 2, 3, 4, 6)

    torch.testing.assert_close(mixer(x.flip(1, 2, 3)), mixer(x).flip(1, 2, 3))


def test_step_sizes_of_the_way_back_start_small_unless_as_published():
    torch.manual_seed(0)
    ours, published = (create("bidirectional", 64, spatial_dims=3, as_published=flag) for flag in (False, True))

    ours, published = (F.softplus(mixer.get_parameter("dt_proj_b.bias")) for mixer in (ours, published))

    assert DELTA_MIN * 0.99 < ours.min() < ours.max() < DELTA_MAX * 1.01
    assert published.min() > 0.3

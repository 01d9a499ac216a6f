from math import prod

import pytest
import torch
from torch.nn import functional as F

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles
from umamba_seg.errors import UsageError
from umamba_seg.mixers import create
from umamba_seg.mixers.branches import DELTA_MAX, DELTA_MIN

OTHERS = ["in_proj.weight", "out_proj.weight"]


def keys_of_a_set(suffix):
    parts = [f"A{suffix}_log", f"D{suffix}", f"x_proj{suffix}.weight"]
    return parts + [f"{name}{suffix}.{kind}" for name in ("conv1d", "dt_proj") for kind in ("weight", "bias")]


def tom(x, weights, slices, directions=3):
    """SegMamba's layer, with the chunks counted on the flattened map."""
    voxels = prod(x.shape[1:-1])
    forwards = list(range(voxels))
    branches = [("", forwards), ("_b", forwards[::-1]), ("_s", oracles.chunk_order(voxels, slices))]
    return oracles.branched(x, weights, branches[:directions])


@pytest.mark.parametrize("size", [(1,), (5,), (3, 4), (1, 5), (2, 3, 4), (3, 1, 2)])
def test_third_route_runs_along_depth(size):
    mixer, x = make_mixer("segmamba", 6, len(size)), make_map(2, *size, 6)

    assert_matches(mixer, x, lambda x, weights: tom(x, weights, slices=size[0]))


@pytest.mark.parametrize("slices", [1, 2, 3, 6, 24])
def test_third_route_steps_through_as_many_chunks_as_it_is_told(slices):
    mixer, x = make_mixer("segmamba", 6, 3, slices=slices, states=3), make_map(2, 2, 3, 4, 6)

    assert_matches(mixer, x, lambda x, weights: tom(x, weights, slices))


@pytest.mark.parametrize("directions", [1, 2])
def test_earlier_generations_have_fewer_directions(directions):
    mixer, x = make_mixer("segmamba", 6, 3, directions=directions), make_map(1, 2, 3, 2, 6)

    assert_matches(mixer, x, lambda x, weights: tom(x, weights, 2, directions))
    assert set(mixer.state_dict()) == {*OTHERS, *(key for s in ("", "_b")[:directions] for key in keys_of_a_set(s))}


def test_one_direction_is_the_stock_layer():
    one, stock = make_mixer("segmamba", 6, 3, directions=1), make_mixer("mamba", 6, 3)
    x = make_map(2, 2, 3, 4, 6)

    one.load_state_dict(stock.state_dict())

    torch.testing.assert_close(one(x), stock(x))


def test_parameters_are_those_of_the_published_layer():
    mixer = create("segmamba", 24, spatial_dims=3)

    assert set(mixer.state_dict()) == {*OTHERS, *(key for s in ("", "_b", "_s") for key in keys_of_a_set(s))}


@pytest.mark.parametrize("suffix", ["_b", "_s"])
def test_step_sizes_of_every_route_start_small_unless_as_published(suffix):
    torch.manual_seed(0)
    ours, published = (create("segmamba", 64, spatial_dims=3, as_published=flag) for flag in (False, True))

    ours, published = (F.softplus(mixer.get_parameter(f"dt_proj{suffix}.bias")) for mixer in (ours, published))

    assert DELTA_MIN * 0.99 < ours.min() < ours.max() < DELTA_MAX * 1.01
    assert published.min() > 0.3


def test_chunks_that_do_not_come_out_even_are_refused_with_a_way_out():
    mixer = create("segmamba", 4, spatial_dims=3, slices=8)

    with pytest.raises(UsageError, match="3×3×3 = 27 voxels into 8 equal slices") as caught:
        mixer(torch.zeros(1, 3, 3, 3, 4))
    assert "leave slices out" in caught.value.how[0]


@pytest.mark.parametrize("options", [{"directions": 4}, {"slices": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match="segmamba"):
        create("segmamba", 4, spatial_dims=3, **options)

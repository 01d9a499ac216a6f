import pytest
import torch

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles
from tests.oracles.mixers import Route
from umamba_seg.errors import UsageError
from umamba_seg.mixers import create

SIZE = (2, 3, 4)
# places of the axes in memory from slow to fast, and whether the last voxel comes first; by preset
PUBLISHED = {
    "vim_v2": [((0, 1, 2), False), ((0, 1, 2), True)],
    "raster2": [((0, 1, 2), False), ((0, 1, 2), True)],
    "raster6": [(axes, back) for axes in [(0, 1, 2), (0, 2, 1), (2, 1, 0)] for back in (False, True)],
    "ss2d": [(axes, back) for back in (False, True) for axes in [(0, 1, 2), (0, 2, 1), (2, 1, 0)]],
    "mamba_nd": [(axes, back) for axes in [(0, 1, 2), (0, 2, 1), (2, 1, 0)] for back in (False, True)],
    "segmamba": [((0, 1, 2), False), ((0, 1, 2), True), ((1, 2, 0), False)],
}
# which set of decays each route has when a route and its reverse share them
PAIRED = {"ss2d": [0, 1, 2, 0, 1, 2], "segmamba": [0, 0, 1]}


def order(axes, is_backwards, size=SIZE):
    numbers = torch.arange(torch.Size(size).numel()).view(size).permute(axes).flatten().tolist()
    return numbers[::-1] if is_backwards else numbers


def as_routes(orders, decays=None, size=SIZE):
    decays = decays or [k // 2 for k in range(len(orders))]
    return [Route([order(*way, size=size)], s) for way, s in zip(orders, decays, strict=True)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_orders(name):
    mixer, x = make_mixer("routes", 6, 3, routes=name), make_map(1, *SIZE, 6)
    routes = as_routes(PUBLISHED[name], PAIRED.get(name))

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, routes))


@pytest.mark.parametrize(
    ("name", "orders", "decays"),
    [
        ("raster6", [((0, 1), False), ((0, 1), True), ((1, 0), False), ((1, 0), True)], [0, 0, 1, 1]),
        ("ss2d", [((0, 1), False), ((1, 0), False), ((0, 1), True), ((1, 0), True)], [0, 1, 0, 1]),
        ("raster2", [((0, 1), False), ((0, 1), True)], [0, 0]),
    ],
)
def test_presets_in_2d(name, orders, decays):
    mixer, x = make_mixer("routes", 6, 2, routes=name), make_map(1, 3, 4, 6)
    routes = as_routes(orders, decays, size=(3, 4))

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, routes))


def test_a_list_may_mix_rasters_and_lines():
    mixer = make_mixer("routes", 6, 3, routes=["z-yx", "+y", "-y", "-x"], spacing=(1.0, 2.0, 1.0), tie="none")
    numbers = torch.arange(24).view(SIZE).flip(1).flatten().tolist()
    routes = [
        Route([numbers], 0),
        Route(oracles.lines(SIZE, 1, "+"), 1, step=2),
        Route(oracles.lines(SIZE, 1, "-"), 2, step=2),
        Route(oracles.lines(SIZE, 2, "-"), 3),
    ]

    assert_matches(mixer, make_map(1, *SIZE, 6), lambda x, weights: oracles.routed(x, weights, routes))


def test_all_signed_axes_are_the_mixer_axes():
    lines, axes = make_mixer("routes", 6, 3, routes=["+z", "-z", "+y", "-y", "+x", "-x"]), make_mixer("axes", 6, 3)
    x = make_map(2, *SIZE, 6)

    lines.load_state_dict(axes.state_dict())

    assert torch.equal(lines(x), axes(x))


def test_groups_of_rasters_have_channels_of_their_own():
    mixer, x = make_mixer("routes", 7, 3, routes="segmamba", group=True), make_map(1, *SIZE, 7)
    routes = as_routes(PUBLISHED["segmamba"], [0, 0, 0])

    assert_matches(mixer, x, lambda x, weights: oracles.grouped(x, weights, routes, [3, 2, 2]))


@pytest.mark.parametrize("name", ["segmamba", "mamba_nd"])
def test_orders_of_volumes_are_refused_in_2d(name):
    with pytest.raises(UsageError, match="orders of volumes, and the map has 2 axes") as caught:
        create("routes", 6, spatial_dims=2, routes=name)
    assert "raster6" in caught.value.how[0]


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ("raster7", "no preset of routes 'raster7'"),
        ([], "at least one route"),
        (["zxz"], "a route over 3 axes"),
        (["+y+x"], "a route over 3 axes"),
    ],
)
def test_routes_that_do_not_exist_are_refused(routes, message):
    with pytest.raises(UsageError, match=message):
        create("routes", 6, spatial_dims=3, routes=routes)

import pytest
import torch

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles
from tests.oracles.mixers import Route
from umamba_seg.errors import UsageError
from umamba_seg.mixers import create
from umamba_seg.mixers.place import Place

SIZES = [(5,), (3, 4), (2, 3, 4), (1, 3, 2), (3, 1, 1)]


def all_lines(size, tie="pair", steps=None):
    """Both directions of every axis in the order of memory."""
    sets = {"pair": lambda k: k // 2, "none": lambda k: k, "all": lambda k: 0}[tie]
    return [
        Route(oracles.lines(size, axis, sign), sets(2 * axis + back), 1 if steps is None else steps[axis])
        for axis in range(len(size))
        for back, sign in enumerate("+-")
    ]


@pytest.mark.parametrize("size", SIZES)
def test_the_layer_sums_lines_along_every_axis_with_more_than_one_voxel(size):
    mixer, x = make_mixer("axes", 6, len(size)), make_map(2, *size, 6)

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, all_lines(size)))


def test_a_map_of_one_voxel_has_the_skip_alone():
    mixer, x = make_mixer("axes", 6, 3), make_map(2, 1, 1, 1, 6)
    weights = {name: value.double() for name, value in mixer.state_dict().items()}

    torch.testing.assert_close(
        mixer(x).double(), oracles.gated(x.double(), weights, torch.zeros_like), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "options",
    [
        {"tie": "none"},
        {"tie": "all"},
        {"states": 3, "expand": 2},
        {"kernel_size": [1, 3, 5]},
        {"learns_weights": True},
    ],
    ids=str,
)
def test_options_that_change_parameters(options):
    size = (2, 3, 4)
    mixer, x = make_mixer("axes", 6, 3, **options), make_map(1, *size, 6)
    routes = all_lines(size, options.get("tie", "pair"))

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, routes))


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_voxel_may_be_left_out_of_what_it_sees(exclusive):
    mixer, x = make_mixer("axes", 6, 2, exclusive=exclusive), make_map(1, 3, 4, 6)

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, all_lines((3, 4)), is_exclusive=exclusive))


def test_without_norm_b_and_c_are_those_of_mamba():
    mixer, x = make_mixer("axes", 6, 2, bc_norm=False), make_map(1, 3, 4, 6)

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, all_lines((3, 4)), has_norm=False))
    assert not {"b_bias", "c_bias"} & set(mixer.state_dict())


@pytest.mark.parametrize(
    ("mm", "spacing", "steps"),
    [
        ("axis", (2.5, 0.8, 1.0), (3.125, 1, 1.25)),
        ("axis", (50.0, 1.0, 2.0), (16, 1, 2)),  # at most 16
        ("off", (2.5, 0.8, 1.0), (1, 1, 1)),
        ("absolute", (2.5, 0.8, 1.0), (2.5, 0.8, 1.0)),
        ("axis", None, (1, 1, 1)),
        ("absolute", None, (1, 1, 1)),
    ],
)
def test_states_decay_per_millimetre(mm, spacing, steps):
    size = (3, 4, 2)
    mixer, x = make_mixer("axes", 6, 3, mm=mm, spacing=spacing), make_map(1, *size, 6)
    routes, is_exact = all_lines(size, steps=steps), mm == "absolute"

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, routes, is_exact=is_exact))


def test_absolute_millimetres_stay_bounded_where_steps_are_long():
    torch.manual_seed(0)
    near, far = (create("axes", 16, spatial_dims=2, mm="absolute", spacing=(s, s)) for s in (1.0, 1000.0))
    far.load_state_dict(near.state_dict())
    x = make_map(1, 8, 8, 16)

    ratio = far(x).square().mean() / near(x).square().mean()

    assert 0.2 < ratio < 5


def test_in_2d_the_spacing_of_the_plane_counts():
    assert create("axes", 4, spatial_dims=2, spacing=(3.0, 0.5, 1.0)).steps == (1.0, 1.0, 2.0, 2.0)


def test_spacing_and_kernel_come_from_the_slot():
    place = Place(kernel_size=(1, 3, 3), spacing=(4.0, 1.0, 1.0), parameters=10)
    mixer = create("axes", 4, spatial_dims=3, place=place)

    assert mixer.steps == (4.0, 4.0, 1.0, 1.0, 1.0, 1.0)
    assert mixer.conv.weight.shape == (4, 1, 1, 3, 3)


@pytest.mark.parametrize("tie", ["pair", "none", "all"])
@pytest.mark.parametrize("size", [(2, 3, 4), (3, 1, 4), (1, 1, 5)])
def test_a_cascade_goes_over_what_was_seen_last_axis_first(size, tie):
    mixer, x = make_mixer("axes", 6, 3, mode="cascade", tie=tie), make_map(1, *size, 6)
    routes = all_lines(size, tie)
    turns = [{k: routes[k] for k in (2 * axis, 2 * axis + 1)} for axis in (2, 1, 0) if size[axis] > 1]

    assert_matches(mixer, x, lambda x, weights: oracles.cascaded(x, weights, turns, len(routes)))


@pytest.mark.parametrize(("channels", "widths"), [(6, [1] * 6), (8, [2, 2, 1, 1, 1, 1]), (12, [2] * 6)])
@pytest.mark.parametrize("size", [(2, 3, 4), (2, 1, 4)])
def test_groups_have_a_route_each(size, channels, widths):
    mixer, x = make_mixer("axes", channels, 3, group=True), make_map(1, *size, channels)

    assert_matches(mixer, x, lambda x, weights: oracles.grouped(x, weights, all_lines(size, "all"), widths))


@pytest.mark.parametrize("size", [(4, 4, 6), (3, 5, 4)])
@pytest.mark.parametrize(("kernel", "factors"), [((3, 3, 3), [2, 2, 2]), ((1, 3, 3), [1, 2, 2])])
def test_a_coarse_copy_is_scanned_and_spread(size, kernel, factors):
    mixer = make_mixer("axes", 6, 3, scale=2, kernel_size=kernel, spacing=(3.0, 1.0, 1.0))
    steps = [3.0 * factors[0] / 2, 1.0, 1.0]
    x = make_map(1, *size, 6)

    assert_matches(
        mixer, x, lambda x, weights: oracles.coarse(x, weights, factors, lambda small: all_lines(small, steps=steps))
    )


@pytest.mark.parametrize(("axes", "places"), [("x", [2]), ("zy", [0, 1]), ("yz", [0, 1])])
def test_a_subset_of_axes(axes, places):
    size = (2, 3, 4)
    mixer, x = make_mixer("axes", 6, 3, axes=axes), make_map(1, *size, 6)
    routes = [Route(oracles.lines(size, axis, sign), i) for i, axis in enumerate(places) for sign in "+-"]

    assert_matches(mixer, x, lambda x, weights: oracles.routed(x, weights, routes))


def test_zero_init_writes_nothing_at_first():
    mixer = create("axes", 6, spatial_dims=3, zero_init=True)

    assert not mixer(make_map(1, 2, 3, 4, 6)).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_map_gives_the_flipped_result_when_both_directions_and_the_kernel_are_alike(axis):
    mixer, x = make_mixer("axes", 6, 3), make_map(2, 3, 4, 5, 6)
    states, first = mixer.states, len(mixer.sets) * mixer.rank
    with torch.no_grad():
        B_C = mixer.x_proj.weight[first:].unflatten(0, (2, 3, 2, states))  # B or C, axis, direction, state
        B_C[:, :, 1] = B_C[:, :, 0]
        for bias in (mixer.b_bias, mixer.c_bias):
            bias[1::2] = bias[::2]
        kernel = mixer.conv.weight
        kernel.copy_(sum(kernel.flip(axes) for axes in ([], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4])) / 8)

    torch.testing.assert_close(mixer(x.flip(axis + 1)), mixer(x).flip(axis + 1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixer(x.flip(axis + 1)), mixer(x))


def test_one_layer_reaches_the_lines_through_the_neighbourhood_and_no_further():
    torch.manual_seed(0)
    mixer = create("axes", 8, spatial_dims=3)
    x = make_map(1, 9, 9, 9, 8)
    moved = x.clone()
    moved[0, 4, 4, 4] += 1

    changed = (mixer(moved) - mixer(x)).abs().amax(-1)[0] > 0

    z, y, x = (abs(i - 4) for i in torch.meshgrid(*[torch.arange(9)] * 3, indexing="ij"))
    near = torch.stack([z <= 1, y <= 1, x <= 1]).sum(0)
    assert torch.equal(changed, near >= 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie": "both"}, "tie must be one of none, pair, all"),
        ({"mode": "series"}, "mode must be one of"),
        ({"mm": "yes"}, "mm must be one of"),
        ({"scale": 0}, "scale must be"),
        ({"axes": "xt"}, "axes must be some of z, y, x"),
        ({"axes": ""}, "axes must be some of"),
        ({"kernel_size": [2, 3, 3]}, "kernel_size must have an odd number"),
        ({"kernel_size": [3, 3]}, "kernel_size must have an odd number"),
        ({"spacing": [1.0]}, "spacing must have a positive number"),
        ({"spacing": [0.0, 1.0, 1.0]}, "spacing must have a positive number"),
        ({"group": True, "channels": 4}, "6 routes cannot share 4 channels"),
        ({"mode": "cascade", "exclusive": True}, "cascade"),
        ({"mode": "cascade", "group": True}, "cascade"),
    ],
    ids=str,
)
def test_options_that_do_not_exist_or_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        create("axes", options.pop("channels", 8), spatial_dims=3, **options)

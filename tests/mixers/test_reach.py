import math

import pytest
import torch
from torch import nn

from umamba_seg.errors import UsageError
from umamba_seg.mixers import create
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.reach import measure


class Shifts(Mixer):
    """Adds up copies of the map, each some voxels further along an axis (0 the slowest) and weaker."""

    def __init__(self, copies):
        super().__init__()
        self.copies, self.one = copies, nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = x
        for (axis, steps), weight in self.copies.items():
            moved = torch.zeros_like(x)
            n = x.shape[axis + 1]
            moved.narrow(axis + 1, max(steps, 0), n - abs(steps)).copy_(
                x.narrow(axis + 1, max(-steps, 0), n - abs(steps))
            )
            y = y + weight * moved
        return self.one * y

    def saved_elements(self, tokens):
        return 0


def test_the_impulse_response_is_read_off_axis_by_axis():
    mixer = Shifts({(0, 1): 0.5, (0, 2): 0.05, (0, 3): 0.005, (1, -2): 0.25, (2, 4): 0.0005})

    reach = measure(mixer, 6, (8, 9, 12), spacing=(2.5, 0.8, 0.5))

    assert reach.responses["+z"] == pytest.approx([1, 0.5, 0.05, 0.005], rel=1e-3, abs=1e-5)
    assert reach.responses["-y"] == pytest.approx([1, 0, 0.25, 0, 0], rel=1e-3, abs=1e-5)
    assert {d: reach.mm(d) for d in reach.responses} == {"+z": 5.0, "-z": 0, "+y": 0, "-y": 1.6, "+x": 0, "-x": 0}
    assert reach.mm("+z", 1e-3) == 7.5
    assert reach.symmetry("z") == math.inf
    assert reach.symmetry("y") == 0
    assert reach.symmetry("x") == 1
    assert reach.wrap == 0


def test_rows_that_move_are_compared_with_what_lies_beyond_their_ends():
    reach = measure(Shifts({(0, 1): 1.0, (0, 2): 1.0}), 6, (16, 2))

    # rows of 8: within, 1 + 2 + 3 * 6 thirds of the largest change; beyond the end two of the copies, then one
    inside = (1 + 2 + 3 * 6) / 8
    assert reach.blocks["+y"] == pytest.approx([2 / inside, 1 / inside, 0, 0], abs=1e-5)
    assert reach.blocks["-y"] == pytest.approx([0] * 4, abs=1e-5)


def test_axes_of_one_voxel_are_left_out_and_lines_do_not_wrap():
    reach = measure(Shifts({(1, 1): 1.0}), 4, (1, 1, 5))

    assert set(reach.responses) == set(reach.blocks) == {"+x", "-x"}
    assert reach.wrap is None


def test_the_mixer_is_left_as_it_is():
    mixer = create("axes", 8, spatial_dims=2)
    before = {name: value.clone() for name, value in mixer.state_dict().items()}

    assert measure(mixer, 8, (6, 6)) == measure(mixer, 8, (6, 6))
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())
    assert all(parameter.grad is None for parameter in mixer.parameters())


def test_size_and_spacing_must_have_the_same_axes():
    with pytest.raises(UsageError, match="1 to 3 axes, each with a spacing"):
        measure(create("axes", 8, spatial_dims=2), 8, (6, 6), spacing=(1.0,))


def test_a_mixer_that_writes_nothing_has_no_reach():
    with pytest.raises(UsageError, match="writes nothing") as caught:
        measure(create("axes", 8, spatial_dims=2, zero_init=True), 8, (6, 6))
    assert "zero_init" in caught.value.how[0]


def reach_of(name, seed=0, size=(16, 16, 16), **options):
    torch.manual_seed(seed)
    return measure(create(name, 32, spatial_dims=3, **options), 32, size, seed=seed, probes=4)


def test_mamba_at_its_initial_values_is_a_convolution_along_the_fast_axis_that_leaks_into_the_next_line():
    reach = reach_of("mamba")

    assert {d: reach.voxels(d) for d in reach.responses} == {"+z": 0, "-z": 0, "+y": 0, "-y": 0, "+x": 3, "-x": 0}
    assert reach.wrap > 0.1


def test_segmamba_v2_sees_nothing_along_y_and_nothing_back():
    reach = reach_of("segmamba_v2")

    assert {d for d in reach.responses if reach.voxels(d)} == {"+z", "+x"}


def test_gated_conv_sees_its_kernel_alone():
    reach = reach_of("gated_conv")

    assert {reach.voxels(direction) for direction in reach.responses} == {1}
    assert reach.wrap == 0


# section D.4 of the specification of the mixers: 24×40×40 voxels, 32 channels
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_b_and_c_as_in_mamba_leave_axes_its_convolution_alone(seed):
    reach = reach_of("axes", seed, size=(24, 40, 40), bc_norm=False, states=16, expand=2)

    assert {reach.voxels(direction) for direction in reach.responses} == {1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_axes_sees_several_voxels_along_every_axis(seed):
    reach = reach_of("axes", seed, size=(24, 40, 40))

    for axis in "zyx":
        assert (reach.voxels(f"+{axis}") + reach.voxels(f"-{axis}")) / 2 >= 5
    assert reach.wrap < 0.01  # a whole line back over a neighbouring one


@pytest.mark.parametrize(
    ("options", "weight", "ratio"),
    [
        ({}, 1, 0.485),  # 0.46 to 0.51
        ({}, 6**-0.5, 0.20),  # 0.19 to 0.21
        ({"bc_norm": False, "states": 16, "expand": 2}, 6**-0.5, 0.003),
    ],
)
def test_share_of_the_scan_in_the_layer_at_its_initial_values(options, weight, ratio):
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        mixer = create("axes", 32, spatial_dims=3, learns_weights=True, **options)
        nn.init.constant_(mixer.route_weights, weight)
        seen = []
        mixer.norm.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        x = nn.functional.layer_norm(torch.randn(1, 24, 40, 40, 32), (32,))
        with torch.no_grad():
            mixer(x)
            nn.init.zeros_(mixer.route_weights)
            mixer(x)
        both, skip = seen
        found.append(((both - skip).square().mean() / skip.square().mean()).sqrt())

    assert torch.stack(found).mean() == pytest.approx(ratio, rel=0.15)


@pytest.mark.parametrize(("options", "least", "most"), [({}, 0.01, 0.1), ({"bc_norm": False}, 0.0001, 0.001)])
def test_a_row_that_moves_is_felt_beyond_its_ends(options, least, most):
    for seed in range(3):
        reach = reach_of("axes", seed, size=(6, 7, 96), **options)

        for direction in ("+x", "-x"):
            assert least < reach.blocks[direction][15] < most

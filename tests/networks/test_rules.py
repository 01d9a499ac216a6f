"""The rules of both generations for any plan, told a second time here in the plainest words."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks.plans import arch_kwargs
from umamba_seg.networks import create

NETWORKS = ("umamba_bot", "umamba_enc", "umamba_gen1_bot", "umamba_gen1_enc")


@st.composite
def plans(draw):
    """Plans of 2 to 7 stages with any strides and block counts, whose deepest maps have 1 to 4 voxels along an axis."""
    dims, n_stages = draw(st.sampled_from([2, 3])), draw(st.integers(2, 7))
    stride = st.lists(st.sampled_from([1, 2]), min_size=dims, max_size=dims)
    strides = [[1] * dims, *draw(st.lists(stride, min_size=n_stages - 1, max_size=n_stages - 1))]
    deepest = draw(st.lists(st.integers(1, 4), min_size=dims, max_size=dims))
    patch_size = [n * math.prod(s[axis] for s in strides) for axis, n in enumerate(deepest)]
    counts = st.lists(st.integers(1, 3), min_size=n_stages, max_size=n_stages)
    return arch_kwargs(
        strides,
        base=draw(st.integers(1, 8)),
        limit=draw(st.integers(8, 40)),
        patch_size=patch_size,
        n_conv_per_stage=draw(counts),
        n_conv_per_stage_decoder=draw(counts)[1:],
    )


def expected_blocks(counts, n_stages, generation):
    """Stages with an index of n/2 or more have one block in generation 2: of 5 stages those from 3 on, not 2."""
    return [1 if generation == 2 and 2 * s >= n_stages else n for s, n in enumerate(counts)]


def expected_slots(plan, name):
    """{stage: numbers per token}: the bottleneck of Bot, or the stages of Enc."""
    dims, n_stages, features = len(plan["patch_size"]), plan["n_stages"], plan["features_per_stage"]
    if name.endswith("bot"):
        return {n_stages - 1: features[-1]}
    if name == "umamba_gen1_enc":
        return dict(enumerate(features))
    found, size = {}, plan["patch_size"]
    for s, stride in enumerate(plan["strides"]):
        size = [n // step for n, step in zip(size, stride, strict=True)]
        if dims == 3 or s % 2 == (n_stages - 1) % 2:
            found[s] = min(math.prod(size), features[s])  # the shorter side of the map's matrix is a token
    return found


def blocks_of(stage):
    return len(getattr(stage, "blocks", stage))


def slots_of(network):
    if network.bottleneck is not None:
        return {network.topology.n_stages - 1: network.bottleneck}
    return {int(s): slot for s, slot in network.encoder.mamba_layers.items()}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(plan=plans())
def test_blocks_and_slots_are_where_the_rules_put_them(name, plan):
    generation = 1 if "gen1" in name else 2
    with torch.device("meta"):
        network = create(name, 1, 2, **plan)

    n_stages = plan["n_stages"]
    encoder = expected_blocks(plan["n_conv_per_stage"], n_stages, generation)
    assert [blocks_of(stage) for stage in network.encoder.stages] == encoder
    assert [blocks_of(stage) for stage in network.decoder.stages] == expected_blocks(
        plan["n_conv_per_stage_decoder"], n_stages, generation
    )
    if generation == 2:
        assert blocks_of(network.encoder.stem) == encoder[0]
    slots = slots_of(network)
    widths = {s: slot.norm.normalized_shape[0] for s, slot in slots.items()}
    assert widths == expected_slots(plan, name)
    is_tied = any(slot.is_channel_wise for slot in slots.values())
    assert network.only_size == (tuple(plan["patch_size"]) if is_tied else None)


@settings(max_examples=25, deadline=None)
@given(plan=plans())
def test_a_slot_is_channel_wise_exactly_where_a_map_has_no_more_voxels_than_channels(plan):
    with torch.device("meta"):
        network = create("umamba_enc", 1, 2, **plan)

    patch = torch.zeros(plan["patch_size"], device="meta")
    for s, slot in slots_of(network).items():
        steps = [math.prod(axis) for axis in zip(*plan["strides"][: s + 1], strict=True)]
        voxels = patch[tuple(slice(None, None, step) for step in steps)].numel()
        assert slot.is_channel_wise == (voxels <= plan["features_per_stage"][s])
        assert slot.norm.normalized_shape[0] == (voxels if slot.is_channel_wise else plan["features_per_stage"][s])


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=10, deadline=None)
@given(plan=plans())
def test_any_plan_gives_a_network_that_fits_its_patch(name, plan):
    assume(all(n > 1 for n in deepest_map(plan)))  # instance norm refuses a single voxel
    with torch.device("meta"):
        network = create(name, 1, 2, True, **plan)
        outputs = network(torch.empty(1, 1, *plan["patch_size"]))

    size, sizes = plan["patch_size"], []
    for stride in plan["strides"]:
        size = [n // step for n, step in zip(size, stride, strict=True)]
        sizes.append(size)
    assert [list(y.shape) for y in outputs] == [[1, 2, *size] for size in sizes[:-1]]


def deepest_map(plan):
    totals = [math.prod(axis) for axis in zip(*plan["strides"], strict=True)]
    return [n // total for n, total in zip(plan["patch_size"], totals, strict=True)]

"""What a slot tells its mixer of the place it is in."""

import math

import pytest
import torch
from torch import nn

from tests.networks.plans import KINDS, PLAN_DRIVEN, arch_kwargs, published
from umamba_seg.mixers import MIXERS
from umamba_seg.networks import NETWORKS, create

PUBLISHED = [(name, plan) for name in PLAN_DRIVEN for plan in "ABCDEF"]


class Recording(nn.Module):
    """A mixer that does nothing but remember its place."""

    def __init__(self, channels, *, spatial_dims, kernel_size=None, spacing=None, parameters=None):
        super().__init__()
        self.place = {"kernel_size": kernel_size, "spacing": spacing, "parameters": parameters}

    def forward(self, x):
        return x


@pytest.fixture(autouse=True)
def recording(monkeypatch):
    monkeypatch.setitem(MIXERS, "recording", f"{__name__}:Recording")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def slots_of(network):
    """{encoder stage: slot}"""
    slots = {int(s): slot for s, slot in network.encoder.mamba_layers.items()}
    return slots if network.bottleneck is None else {network.topology.n_stages - 1: network.bottleneck}


def on_meta(name, plan, **changes):
    with torch.device("meta"):
        return create(name, **published(plan), **changes)


@pytest.mark.parametrize("name", PLAN_DRIVEN)
def test_kernel_and_spacing_are_those_of_the_map(name):
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 1], [2, 2, 2]]
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 5]]
    with torch.device("meta"):
        plan = arch_kwargs(strides, kernels=kernels, patch_size=[8, 16, 16])
        network = create(name, 1, 2, **plan, mixer="recording", spacing=[3.0, 0.5, 0.5])

    edges = {0: (3.0, 0.5, 0.5), 1: (3.0, 1.0, 1.0), 2: (6.0, 2.0, 1.0), 3: (12.0, 4.0, 2.0)}
    slots = slots_of(network)
    assert len(slots) == (4 if name.endswith("enc") else 1)
    for s, slot in slots.items():
        assert slot.mixer.place["spacing"] == edges[s]
        assert slot.mixer.place["kernel_size"] == tuple(kernels[s])


@pytest.mark.parametrize("name", PLAN_DRIVEN)
def test_without_spacing_the_mixer_is_told_of_none(name):
    slots = slots_of(on_meta(name, "A", mixer="recording"))

    assert all(slot.mixer.place["spacing"] is None for slot in slots.values())


@pytest.mark.parametrize(("name", "plan"), PUBLISHED)
def test_parameters_are_those_of_the_published_mixer_in_this_slot(name, plan):
    told, filled = slots_of(on_meta(name, plan, mixer="recording")), slots_of(on_meta(name, plan))

    assert told.keys() == filled.keys()
    for s, slot in told.items():
        assert slot.mixer.place["parameters"] == count(filled[s].mixer)


def test_parameters_follow_the_token_rule():
    """Stage 5 of plan A: 210 voxels, 320 channels. Counted by hand for d = 210 and d = 320, e = 2d."""

    def mamba(d):
        e, rank, n = 2 * d, math.ceil(d / 16), 16
        return 2 * e * d + e * 4 + e + (rank + 2 * n) * e + e * rank + e + e * n + e + d * e

    over_channels = slots_of(on_meta("umamba_enc", "A", mixer="recording"))[5]
    over_voxels = slots_of(on_meta("umamba_enc", "A", mixer="recording", channel_tokens=False))[5]

    assert over_channels.mixer.place["parameters"] == mamba(210)
    assert over_voxels.mixer.place["parameters"] == mamba(320)


@pytest.mark.parametrize(("name", "plan"), PUBLISHED)
def test_a_twin_with_convolutions_has_as_many_parameters(name, plan):
    network, twin = count(on_meta(name, plan)), count(on_meta(name, plan, mixer="conv"))

    assert abs(twin / network - 1) < 0.02


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_a_small_twin_with_convolutions_has_about_as_many_parameters(name, dims):
    """Of a network of a few thousand weights, the smallest that plans make; one hidden channel is much there."""
    patch = [16] * dims
    plan = arch_kwargs([[1] * dims, [2] * dims, [2] * dims], base=16, limit=64, patch_size=patch)
    with torch.device("meta"):
        network, twin = (count(create(name, 1, 2, **plan, mixer=mixer)) for mixer in (NETWORKS[name].mixer, "conv"))

    assert abs(twin / network - 1) < 0.02


def test_telling_the_place_changes_no_initial_value():
    plan = arch_kwargs([[1, 1], [2, 2], [2, 2]], patch_size=[32, 32])
    drawn = []
    for spacing in (None, [1.0, 2.0]):
        torch.manual_seed(0)
        create("umamba_enc", 1, 2, **plan, spacing=spacing)
        drawn.append(torch.rand(1))

    assert drawn[0] == drawn[1]

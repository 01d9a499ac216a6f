"""Layers computed otherwise: the same bits as torch's, and torch's own wherever that is not sure."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from umamba_seg.inference.quick_layers import Checked, quicken

LAYERS = {
    "one channel": (nn.Conv3d(1, 16, 3, padding=1), (1, 1, 20, 24, 28)),
    "one channel, strided, no bias": (nn.Conv3d(1, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), (1, 1, 9, 24, 21)),
    "norm": (nn.InstanceNorm3d(32, affine=True), (1, 32, 12, 17, 19)),
    "norm of a large tile": (nn.InstanceNorm3d(24, affine=True), (1, 24, 40, 40, 41)),
    "norm of two tiles": (nn.InstanceNorm3d(8, affine=True), (2, 8, 9, 8, 7)),
    "norm without weights": (nn.InstanceNorm2d(12, eps=1e-3), (1, 12, 31, 33)),
    "norm of two voxels": (nn.InstanceNorm3d(320, affine=True), (1, 320, 1, 1, 2)),
}


@pytest.fixture(params=LAYERS)
def layer_and_shape(request):
    layer, shape = LAYERS[request.param]
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer.eval(), shape


def test_every_bit_is_torchs(layer_and_shape):
    layer, shape = layer_and_shape
    quick = deepcopy(layer)
    quicken(quick)
    with torch.inference_mode():
        for factor in (1.0, 100.0, 1e-3):
            x = torch.randn(shape) * factor + 3 * factor
            assert torch.equal(quick(x), layer(x))


def test_norms_are_computed_in_the_quick_way(layer_and_shape):
    layer, shape = layer_and_shape
    if isinstance(layer, nn.Conv3d):
        pytest.skip("whether oneDNN adds up as torch does depends on the processor")
    quick = deepcopy(layer)
    quicken(quick)
    with torch.inference_mode():
        quick(torch.randn(shape))
    assert quick.forward.is_same == {torch.Size(shape): True}


def test_layers_of_other_kinds_are_left_alone():
    network = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv2d(1, 4, 3), nn.InstanceNorm3d(6), nn.BatchNorm3d(4))
    network.append(nn.InstanceNorm3d(4, track_running_stats=True))
    network.append(nn.Conv3d(1, 4, 3, padding=1, padding_mode="reflect"))
    quicken(network)
    assert not any("forward" in vars(layer) for layer in network)


def test_a_way_that_differs_in_one_bit_is_not_taken():
    def quick(x):
        return torch.nextafter(x, x + 1)

    layer, x = Checked(torch.clone, quick), torch.rand(40, 40)
    assert torch.equal(layer(x), x)
    assert torch.equal(layer(x), x)
    assert layer.is_same == {x.shape: False}


def test_each_shape_is_tried_for_itself():
    def quick(x):
        return x + 1 if len(x) > 50 else x.clone()

    layer = Checked(torch.clone, quick)
    for size in (40, 60, 40, 60):
        x = torch.rand(size, 40)
        assert torch.equal(layer(x), x)
    assert layer.is_same == {torch.Size((40, 40)): True, torch.Size((60, 40)): False}


def test_an_empty_tile_proves_nothing():
    layer = Checked(torch.clone, torch.abs)
    empty, full = torch.zeros(40, 40), -torch.rand(40, 40)
    for x in (empty, full, full):
        assert torch.equal(layer(x), x)
    assert layer.is_same == {full.shape: False}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_numbers_go_through_torch(kind):
    def quick(x):
        raise AssertionError

    layer = Checked(torch.clone, quick)
    layer(torch.rand(40, 40, dtype=kind))
    layer(torch.rand(40, 40).t())
    assert layer.is_same == {}

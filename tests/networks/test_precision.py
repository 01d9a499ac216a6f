"""Networks under 16-bit autocast: finite, and as close to float32 as rounding allows."""

import pydoc

import pytest
import torch

from tests.networks.plans import arch_kwargs
from umamba_seg.networks import NETWORKS
from umamba_seg.networks.precision import FLOAT16_LIMIT, autocast_dtype, is_wide, narrowed
from umamba_seg.networks.slot import MixerSlot

KINDS = [(name, dims) for name, record in NETWORKS.items() for dims in record.dims]
# Error of the logits in units of the last place of the dtype. Every slot of Enc, having no residual, about doubles it.
UNITS = {"umamba_bot": 16, "umamba_enc": 64}
FLOAT16_MAX = torch.finfo(torch.float16).max


def build(name, dims):
    torch.manual_seed(0)
    kwargs = arch_kwargs([[1] * dims, [2] * dims, [2] * dims], patch_size=[16] * dims)
    network = pydoc.locate(NETWORKS[name].class_path)(2, 3, **kwargs)
    return network.apply(network.initialize)


def image(dims):
    return torch.randn(1, 2, *[16] * dims, generator=torch.Generator().manual_seed(1))


def slots_of(network):
    return [module for module in network.modules() if isinstance(module, MixerSlot)]


def write_large_maps(network, factor):
    """Make what the slots write larger, and the weights that read it without a norm smaller by the same factor."""
    encoder, decoder = network.encoder, network.decoder
    with torch.no_grad():
        for slot in slots_of(network):
            slot.mixer.out_proj.weight *= factor
        decoder.upsample_layers[0].conv.weight /= factor
        for stage in (int(s) for s in encoder.mamba_layers if int(s) < len(encoder.stages) - 1):
            encoder.stages[stage + 1][0].conv3.weight /= factor
            j = network.topology.decoder_order.index(stage)
            if j < decoder.n_skips:
                weight = decoder.stages[j][0].conv3.weight
                weight[:, weight.shape[0] :] /= factor


def relative_error(actual, expected):
    return ((actual.float() - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_autocast_is_close_to_float32(name, dims, dtype):
    network, x = build(name, dims), image(dims)

    with torch.autocast("cpu", dtype=dtype):
        y = network(x)

    assert y.dtype == dtype
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(dtype).eps


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_maps_that_float16_cannot_hold_reach_the_next_layer_unharmed(name, dims):
    network, x = build(name, dims), image(dims)
    write_large_maps(network, 1e8)
    written = []
    for slot in slots_of(network):
        slot.register_forward_hook(lambda slot, args, y: written.append(y.abs().max()))

    with torch.autocast("cpu", dtype=torch.float16):
        y = network(x)
    y.float().mean().backward()

    assert min(written) > FLOAT16_MAX
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(torch.float16).eps
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_logits_are_finite_even_when_nothing_brings_large_maps_down(name, dims):
    network, x = build(name, dims), image(dims)
    for slot in slots_of(network):
        slot.mixer.out_proj.weight.data *= 1e8

    with torch.autocast("cpu", dtype=torch.float16):
        y = network(x)

    assert y.isfinite().all()
    assert y.abs().max() > 100  # a zero would be finite too


def test_a_whole_network_in_bfloat16_runs():
    network = build("umamba_enc", 2)

    y = network.to(torch.bfloat16)(image(2).to(torch.bfloat16))

    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


def test_without_autocast_no_map_is_wide_and_nothing_saturates():
    x = torch.tensor([1e9])

    assert not is_wide(x)
    assert autocast_dtype(x) == torch.float32
    assert narrowed(x) == x
    assert autocast_dtype(x.to("meta")) == torch.float32


def test_under_float16_autocast_float32_is_wide_and_saturates():
    x = torch.tensor([1e9, -1e9, 3.0])

    with torch.autocast("cpu", dtype=torch.float16):
        assert is_wide(x)
        assert not is_wide(x.half())
        assert narrowed(x).tolist() == [FLOAT16_LIMIT, -FLOAT16_LIMIT, 3.0]
        assert narrowed(x).dtype == torch.float16


def test_under_bfloat16_autocast_nothing_saturates():
    x = torch.tensor([2.0**30])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_wide(x)
        assert narrowed(x).item() == 2.0**30

"""Networks under 16-bit autocast: finite, and as close to float32 as rounding allows."""

import pytest
import torch
from torch.nn import functional as F

from tests.networks.plans import KINDS, PLAN_DRIVEN, arch_kwargs
from umamba_seg.networks import create
from umamba_seg.networks.precision import FLOAT16_LIMIT, autocast_dtype, is_wide, narrowed, saturated

# Error of the logits in units of the last place of the dtype. Every slot of Enc, having no residual, about doubles it.
UNITS = {"umamba_bot": 16, "umamba_enc": 64, "umamba_gen1_bot": 16, "umamba_gen1_enc": 64}
FLOAT16_MAX = torch.finfo(torch.float16).max
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build(name, dims):
    torch.manual_seed(0)
    kwargs = arch_kwargs([[1] * dims, [2] * dims, [2] * dims], patch_size=[16] * dims)
    return create(name, 2, 3, **kwargs).to(DEVICE)


def image(dims):
    return torch.randn(1, 2, *[16] * dims, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def slots_of(network):
    """All slots, that of a plain bottleneck too, which is no module of its own."""
    bottleneck = [] if network.bottleneck is None else [network.bottleneck]
    return [*network.encoder.mamba_layers.values(), *bottleneck]


def maps_written(network):
    """A list that fills with the largest number in each map that a slot writes."""
    written = []
    for slot in slots_of(network):
        slot.register_forward_hook(lambda slot, args, y: written.append(y.detach().abs().max().item()))
    return written


def write_large_maps(network, factor):
    """Make what the slots write larger, and the weights that read it without a norm smaller by the same factor."""
    encoder, decoder = network.encoder, network.decoder
    with torch.no_grad():
        for slot in slots_of(network):
            slot.mixer.out_proj.weight *= factor
        upsample = decoder.upsampling[0]
        getattr(upsample, "conv", upsample).weight /= factor
        if decoder.upsample_name == "transpconvs":
            return  # in generation 1 a norm stands behind every other convolution
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

    with torch.autocast(DEVICE, dtype=dtype):
        y = network(x)

    assert y.dtype == dtype
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_maps_that_float16_cannot_hold_reach_the_next_layer_unharmed(name, dims, dtype):
    network, x = build(name, dims), image(dims)
    write_large_maps(network, 1e8)
    written = maps_written(network)

    with torch.autocast(DEVICE, dtype=dtype):
        y = network(x)
    y.float().mean().backward()

    assert min(written) > FLOAT16_MAX
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(dtype).eps
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_logits_are_finite_even_when_nothing_brings_large_maps_down(name, dims, dtype):
    network, x = build(name, dims), image(dims)
    for slot in slots_of(network):
        slot.mixer.out_proj.weight.data *= 1e8
    written = maps_written(network)

    with torch.autocast(DEVICE, dtype=dtype):
        y = network(x)

    assert min(written) > FLOAT16_MAX
    assert y.isfinite().all()
    assert y.std() > 0.1  # a constant would be finite too


@pytest.mark.parametrize("name", ["umamba_bot", "umamba_enc"])  # in generation 1 norms stand in the way
def test_large_maps_do_not_grow_along_a_deep_decoder(name):
    torch.manual_seed(0)
    network = create(name, 2, 3, **arch_kwargs([[1, 1], *[[2, 2]] * 6], base=4, limit=64, patch_size=[128, 128]))
    for slot in slots_of(network):
        slot.mixer.out_proj.weight.data *= 1e8
    for upsample, stage in zip(network.decoder.upsampling, network.decoder.stages, strict=True):
        upsample.conv.weight.data *= 1.5
        stage[0].conv3.weight.data *= 1.5

    with torch.autocast(DEVICE, dtype=torch.float16):
        y = network.to(DEVICE)(torch.randn(1, 2, 128, 128, generator=torch.Generator().manual_seed(1)).to(DEVICE))

    assert y.isfinite().all()
    assert y.std() > 0.1


@pytest.mark.parametrize("name", PLAN_DRIVEN)
def test_training_in_float16_goes_on_however_large_the_maps_are(name):
    """With gradients that float16 cannot hold either, the gradient scaler skips steps until it has found its scale."""
    network, x = build(name, 2), image(2)
    target = torch.randint(3, (1, 16, 16), generator=torch.Generator().manual_seed(2)).to(DEVICE)
    for slot in slots_of(network):
        slot.norm.weight.data *= 100
    written = maps_written(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, nesterov=True)
    scaler = torch.amp.GradScaler(DEVICE)
    losses = []

    for _ in range(50):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, dtype=torch.float16):
            loss = F.cross_entropy(network(x).float(), target)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())

    assert min(written) > FLOAT16_MAX
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.isfinite().all() for parameter in network.parameters())


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


def test_in_float16_a_map_saturates_in_place_and_in_float32_it_does_not():
    half, single = torch.tensor([6e4, float("-inf"), 3.0]).half(), torch.tensor([1e9])

    assert saturated(half) is half
    assert half.tolist() == [FLOAT16_LIMIT, -FLOAT16_LIMIT, 3.0]
    assert saturated(single).item() == 1e9


def test_under_bfloat16_autocast_nothing_saturates():
    x = torch.tensor([2.0**30])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_wide(x)
        assert narrowed(x).item() == 2.0**30

"""What every network does that returns logits of one resolution, with each mixer, in 2D and 3D."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from tests.networks.plans import arch_kwargs
from tests.networks.single_resolution import (
    INPUT_CHANNELS,
    KINDS,
    NUM_CLASSES,
    SIZE,
    TINY,
    build,
    image,
    mixers_of,
)
from umamba_seg.errors import UsageError
from umamba_seg.mixers import MIXERS
from umamba_seg.networks import NETWORKS
from umamba_seg.networks.architecture import architecture, with_mixer
from umamba_seg.networks.segmamba_blocks import SqueezeExcite

WITH_MIXERS = [(name, dims, NETWORKS[name].mixer) for name, dims in KINDS] + [
    (name, 3, mixer) for name in TINY for mixer in MIXERS if mixer != NETWORKS[name].mixer
]
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
# Error of the logits in units of the last place of the dtype. Where scans drown what stands beside them, every layer of
# LightM-UNet amplifies errors; rounding its image alone then does as much.
UNITS = {"segmamba": 16, "segmamba_v2": 16, "lightm_unet": 64}
FLOAT16_MAX = torch.finfo(torch.float16).max
PLAN = arch_kwargs([[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]], base=8, limit=64)


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_network_runs_forward_and_backward(name, dims, mixer):
    network, x = build(name, dims, mixer=mixer), image(dims, batch=2)

    y = network(x)
    y.square().mean().backward()

    assert y.shape == (2, NUM_CLASSES, *SIZE[dims])
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_nnunet_switches_between_a_list_of_one_and_its_entry(name, dims):
    network, x = build(name, dims, deep_supervision=True), image(dims)
    [y] = network(x)

    network.decoder.deep_supervision = False

    torch.testing.assert_close(network(x), y, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_twin_has_the_parameters_that_stand_in_no_slot(name, dims):
    network, twin = build(name, dims), build(name, dims, mixer="none")
    inside = (".mamba.", ".norm.") if name != "lightm_unet" else (".mamba.",)

    expected = [key for key in network.state_dict() if not any(part in key for part in inside)]

    assert list(twin.state_dict()) == expected
    assert len(mixers_of(network)) > 0 == len(mixers_of(twin))
    twin.load_state_dict({key: network.state_dict()[key] for key in expected})


@pytest.mark.parametrize("name", ["segmamba", "segmamba_v2", "lightm_unet"])
def test_published_network_and_its_convolutional_twin_differ_by_less_than_two_percent(name):
    record = NETWORKS[name]
    plan = {**PLAN, "features_per_stage": [32] * 6}
    block = architecture(record, {"arch_kwargs": plan, "_kw_requires_import": []}, [64] * 3)
    counts = {}
    with torch.device("meta"):
        for mixer in (record.mixer, "conv"):
            path, kwargs, classes = with_mixer(block, mixer).values()
            network = get_network_from_plans(path, kwargs, classes, 1, 2, deep_supervision=False)
            counts[mixer] = sum(parameter.numel() for parameter in network.parameters())

    assert counts["conv"] == pytest.approx(counts[record.mixer], rel=0.02)


@pytest.mark.parametrize("name", ["segmamba", "segmamba_v2", "lightm_unet"])
def test_every_slot_of_the_convolutional_twin_is_as_large_as_the_published_layer(name):
    published, twin = (mixers_of(build(name, mixer=mixer, **WIDE[name])) for mixer in (NETWORKS[name].mixer, "conv"))

    for layer, guest in zip(published, twin, strict=True):
        wanted, got = (sum(parameter.numel() for parameter in mixer.parameters()) for mixer in (layer, guest))
        assert got == pytest.approx(wanted, rel=0.1)  # one kernel of the narrowest more or less is a tenth


WIDE = {
    "segmamba": {"depths": [1, 1], "features": [48, 96], "hidden": 96},
    "segmamba_v2": {"depths": [1, 1, 1], "features": [8, 8, 64], "hidden": 64},
    "lightm_unet": {"init_filters": 32},
}


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_plans_build_networks_that_load_each_others_weights(name, dims):
    plan = {**PLAN, "strides": [stride[-dims:] for stride in PLAN["strides"]]}
    patch = [16, 32, 32][-dims:]
    like = {"arch_kwargs": plan, "_kw_requires_import": ["conv_op"]}
    block = architecture(NETWORKS[name], like, patch, spacing=[2.0] * dims)
    block["arch_kwargs"]["mixer_options"] = {"states": 4}
    before = copy.deepcopy(block)
    path, kwargs, classes = block.values()

    trained = get_network_from_plans(path, kwargs, classes, INPUT_CHANNELS, NUM_CLASSES, deep_supervision=True)
    predicting = get_network_from_plans(path, kwargs, classes, INPUT_CHANNELS, NUM_CLASSES, deep_supervision=False)
    predicting.load_state_dict(trained.state_dict())

    x = image(size=patch)
    assert block == json.loads(json.dumps(block)) == before
    torch.testing.assert_close(predicting(x), trained(x)[0])


@pytest.mark.parametrize("name", TINY)
def test_nnunet_makes_the_first_target_of_full_resolution(name):
    """It makes one for each entry of `strides` but the last, and its loss reads as many as there are outputs."""
    block = architecture(NETWORKS[name], {"arch_kwargs": PLAN, "_kw_requires_import": []}, [32, 32, 32])
    scales = 1 / np.cumprod(np.vstack(block["arch_kwargs"]["strides"]), axis=0)[:-1]
    x = image(size=[8, 8, 16])
    outputs = build(name, deep_supervision=True)(x)
    targets = [x.new_zeros(1, 3, *(np.array(x.shape[2:]) * scale).astype(int)) for scale in scales]
    weights = [1.0, *(0.5 for _ in scales[1:])]

    loss = DeepSupervisionWrapper(nn.functional.mse_loss, weights)(outputs, targets)

    torch.testing.assert_close(loss, outputs[0].square().mean())


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_arguments_may_be_tuples_and_are_left_alone(name, dims):
    lists = {**TINY[name], "strides": None, "mixer_options": {"states": 4}}
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in lists.items()}
    before = copy.deepcopy(tuples)

    network = build(name, dims, **tuples)

    assert tuples == before
    torch.testing.assert_close(network(image(dims)), build(name, dims, **lists)(image(dims)))


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_nothing_is_printed(name, dims, capsys):
    build(name, dims)(image(dims))

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_a_copy_is_a_network_of_its_own(name, dims):
    network, x = build(name, dims), image(dims)
    before = network(x)
    copied = copy.deepcopy(network)

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)

    torch.testing.assert_close(copied(x), before, rtol=0, atol=0)
    assert copied.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_every_tensor_has_one_name(name, dims):
    weights = build(name, dims).state_dict()

    assert len({value.data_ptr() for value in weights.values()}) == len(weights)


@pytest.mark.parametrize("name", TINY)
def test_networks_start_as_torch_starts_their_layers(name):
    network = build(name)
    before = copy.deepcopy(network.state_dict())

    network.apply(network.initialize)

    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mixer", ["published", "none", "conv"])
@pytest.mark.parametrize("name", TINY)
def test_feature_map_size_counts_what_convolutions_write_and_mixers_keep(name, dims, mixer):
    """The convolutions inside a mixer are its own business; the projection around one counts as a convolution."""
    network = build(name, dims, mixer=NETWORKS[name].mixer if mixer == "published" else mixer)
    mixers = mixers_of(network)
    apart = {part for mixer in mixers for part in mixer.modules()}
    apart |= {part for gate in network.modules() if isinstance(gate, SqueezeExcite) for part in gate.modules()}
    counts = []
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS) and module not in apart:
            module.register_forward_hook(lambda module, args, y: counts.append(y.numel()))
    for module in mixers:
        module.register_forward_hook(
            lambda mixer, args, y: counts.append(mixer.saved_elements(math.prod(y.shape[1:-1])))
        )

    network(image(dims))

    assert network.compute_conv_feature_map_size(SIZE[dims]) == sum(counts)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_network_exports_with_any_batch(name, dims):
    network = build(name, dims).eval()
    batch = torch.export.Dim("batch", min=1, max=16)

    exported = torch.export.export(network, (image(dims, batch=2),), dynamic_shapes=({0: batch},))

    x = image(dims, batch=3)
    torch.testing.assert_close(exported.module()(x), network(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_network_compiles_in_one_piece(name):
    network, x = build(name), image()

    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_autocast_is_close_to_float32(name, dims, dtype):
    network, x = build(name, dims), image(dims)

    with torch.autocast("cpu", dtype=dtype):
        y = network(x)

    assert y.dtype == dtype
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(dtype).eps


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_maps_that_float16_cannot_hold_reach_the_next_norm_unharmed(name, dims):
    network, x = build(name, dims), image(dims)
    written = []
    for mixer in mixers_of(network):
        mixer.out_proj.weight.data *= 1e8
        mixer.register_forward_hook(lambda mixer, args, y: written.append(y.abs().max()))

    with torch.autocast("cpu", dtype=torch.float16):
        y = network(x)
    y.float().square().mean().backward()

    assert min(written) > FLOAT16_MAX
    assert relative_error(y, network(x)) < UNITS[name] * torch.finfo(torch.float16).eps
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", TINY)
def test_a_whole_network_in_bfloat16_runs(name):
    y = build(name).to(torch.bfloat16)(image().to(torch.bfloat16))

    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": 1}, "dims must be 2 or 3, got 1"),
        ({"strides": [1, 2]}, r"strides needs \d entries, got 2"),
        ({"strides": [2, 2, 2, 2]}, "strides must start with full resolution|strides needs 3 entries"),
        ({"spacing": [1.0, 1.0]}, "spacing needs 3 positive lengths"),
        ({"mixer": "mambo"}, "no mixer 'mambo'"),
        ({"mixer_options": {"state": 3}}, "no option state"),
    ],
)
def test_arguments_that_cannot_be_built_say_why(name, changes, message):
    with pytest.raises(UsageError, match=message):
        build(name, **changes)


@pytest.mark.parametrize("name", TINY)
def test_sizes_that_the_strides_do_not_divide_are_refused(name):
    network = build(name)
    steps = "8×8×8" if name == "segmamba_v2" else "4×4×4"

    with pytest.raises(UsageError, match=f"multiple of {steps}, the total strides; got 16×20×30") as caught:
        network(image(size=[16, 20, 30]))
    assert caught.value.how[0].startswith("use 16×")
    with pytest.raises(UsageError, match="takes 3 spatial axes, got 2"):
        network(image(2))


def relative_error(actual, expected):
    return ((actual.float() - expected).square().mean() / expected.square().mean()).sqrt().item()

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from tests.networks.plans import TINY_PATCH, arch_kwargs, published, tiny
from umamba_seg.errors import UsageError
from umamba_seg.kernels import use
from umamba_seg.networks import UMambaBot, UMambaEnc, create
from umamba_seg.networks.blocks import NearestUpsample
from umamba_seg.networks.rules import Places
from umamba_seg.networks.slot import MixerSlot


def everywhere(n_stages, dims):
    return Places(
        encoder=tuple(range(n_stages)),
        has_bottleneck=True,
        decoder=tuple(range(n_stages - 1)),
        skips=tuple(range(n_stages - 1)),
    )


class GuestsEverywhere(UMambaBot):
    """A family with every slot there is, none of them filled as published."""

    generations: ClassVar = {2: replace(UMambaEnc.generations[2], places=everywhere, published_mixer="segmamba")}


CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, NearestUpsample)


def build(network, dims=3, **changes):
    torch.manual_seed(0)
    return network(2, 3, **tiny(dims, **changes))


def image(*size):
    return torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", [2, 3])
def test_every_slot_can_be_filled(dims):
    network = build(GuestsEverywhere, dims)

    network(image(*TINY_PATCH[dims])).square().mean().backward()

    slots = [module for module in network.modules() if isinstance(module, MixerSlot)]
    assert len(slots) == 4 + 1 + 3 + 3
    used = [slot for slot in slots if slot is not (network.skip_layers["0"] if dims == 2 else None)]
    assert all(parameter.grad.abs().max() > 0 for slot in used for parameter in slot.parameters())


def test_a_guest_adds_to_the_map_and_ties_no_weights_to_a_size():
    network = build(GuestsEverywhere)
    twin = build(GuestsEverywhere, mixer="none")
    for module in network.modules():
        if isinstance(module, MixerSlot):
            nn.init.zeros_(module.mixer.out_proj.weight)
    twin.load_state_dict({name: network.state_dict()[name] for name in twin.state_dict()})
    x = image(8, 16, 24)

    assert network.only_size is None
    torch.testing.assert_close(network(x), twin(x))


@pytest.mark.parametrize("network", [UMambaBot, UMambaEnc])
def test_classes_and_dotted_paths_build_the_same_network(network):
    by_path, x = build(network), image(*TINY_PATCH[3])
    torch.manual_seed(0)
    by_class = network(2, 3, **{**tiny(3), "conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU})

    torch.testing.assert_close(by_class(x), by_path(x))


def test_one_number_stands_for_a_list_of_equal_ones():
    lists = arch_kwargs([[2, 2]] * 3, base=8, limit=8)
    numbers = {"features_per_stage": 8, "kernel_sizes": 3, "strides": 2}
    blocks = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}

    network = UMambaBot(1, 2, **{**lists, **numbers, **blocks})

    assert network.topology == UMambaBot(1, 2, **lists).topology


def test_dropout_and_absent_layers_are_built_as_planned():
    with_dropout = build(UMambaBot, dropout_op="torch.nn.Dropout3d", dropout_op_kwargs={"p": 0.5})
    bare = build(UMambaBot, norm_op=None, nonlin=None, conv_bias=False, mixer="none")

    assert sum(isinstance(module, nn.Dropout3d) for module in with_dropout.modules()) > 0
    assert not torch.equal(with_dropout(image(8, 8, 16)), with_dropout(image(8, 8, 16)))
    assert {name.rsplit(".", 1)[0] for name in bare.state_dict() if name.endswith("bias")} == {
        f"decoder.seg_layers.{j}" for j in range(3)
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [[1, 1, 1], [2, 2, 2]]}, "strides needs 4 entries, got 2"),
        ({"strides": [[1, 1], [2, 2], [2, 2], [2, 2]]}, r"each entry of strides needs 3 numbers, got \[1, 1\]"),
        ({"n_conv_per_stage_decoder": [2, 2]}, "n_conv_per_stage_decoder needs 3 entries, got 2"),
        ({"n_conv_per_stage": [2, 0, 2, 2]}, "n_conv_per_stage must be 1 or more"),
        ({"n_conv_per_stage": None}, "either n_conv_per_stage or n_blocks_per_stage"),
        ({"n_blocks_per_stage": 2}, "either n_conv_per_stage or n_blocks_per_stage"),
        ({"n_stages": 1}, "n_stages of 2 or more, got 1"),
        ({"conv_op": "torch.nn.Conv1d"}, "conv_op must be torch.nn.Conv2d or torch.nn.Conv3d, got 'torch.nn.Conv1d'"),
        ({"norm_op": "torch.nn.NoNorm"}, "norm_op must be a layer or its path.*'torch.nn.NoNorm'"),
        ({"mixer": "mambo"}, "no mixer 'mambo'"),
        ({"mixer_options": {"state": 3}}, "no option state"),
        ({"patch_size": [8, 9, 16]}, "multiple of 4×8×8, the total strides; got 8×9×16"),
        ({"patch_size": None}, "UMambaEnc needs patch_size"),
        ({"spacing": [1.0, 1.0]}, r"spacing needs 3 positive lengths in mm, got \[1.0, 1.0\]"),
        ({"spacing": [1.0, 0.0, 1.0]}, r"spacing needs 3 positive lengths in mm, got \[1.0, 0.0, 1.0\]"),
    ],
)
def test_plans_that_cannot_be_built_say_why(changes, message):
    with pytest.raises(UsageError, match=message):
        build(UMambaEnc, **changes)


def test_bot_and_twins_need_no_patch_size():
    build(UMambaBot, patch_size=None)
    build(UMambaEnc, patch_size=None, mixer="none")


@pytest.mark.parametrize(
    ("size", "hint"),
    [((8, 9, 16), "use 8×8×16 or 8×16×16"), ((3, 8, 8), "use 4×8×8"), ((0, 8, 8), "use 4×8×8")],
)
def test_sizes_that_the_strides_do_not_divide_are_refused(size, hint):
    with pytest.raises(UsageError, match="multiple of 4×8×8") as caught:
        build(UMambaBot)(image(*size))
    assert caught.value.how == (hint,)


def test_enc_takes_its_patch_size_only_where_slots_mix_channels():
    network = build(UMambaEnc)

    with pytest.raises(UsageError, match=r"ties its weights to inputs of 8×8×16; got 8×16×16") as caught:
        network(image(8, 16, 16))
    assert "fine-tune it with patches of 8×16×16" in caught.value.how[1]
    assert "umamba_seg.networks.resample_weights" in caught.value.how[1]
    assert "channel_tokens=False" in caught.value.how[2]


def test_without_channel_tokens_enc_takes_any_size_the_strides_divide():
    network = build(UMambaEnc, channel_tokens=False, patch_size=None)

    y = network(image(8, 16, 16))

    assert network.only_size is None
    assert y.shape == (1, 3, 8, 16, 16)


def test_channel_tokens_make_no_difference_where_no_map_is_small():
    kwargs = arch_kwargs([[1, 1], [2, 2], [2, 2]], patch_size=[32, 32])
    with_tokens = UMambaEnc(2, 3, **kwargs)
    without = UMambaEnc(2, 3, **kwargs, channel_tokens=False)

    without.load_state_dict(with_tokens.state_dict())

    x = image(32, 32)
    torch.testing.assert_close(without(x), with_tokens(x), rtol=0, atol=0)


def test_enc_without_channel_wise_slots_takes_other_sizes():
    kwargs = arch_kwargs([[1, 1], [2, 2], [2, 2]], patch_size=[32, 32])

    y = UMambaEnc(2, 3, **kwargs)(image(16, 48))

    assert y.shape == (1, 3, 16, 48)


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("generation", [1, 2])
def test_feature_map_size_counts_what_convolutions_write(dims, deep_supervision, generation):
    network = build(UMambaEnc, dims, mixer="none", deep_supervision=deep_supervision, generation=generation)
    written = []
    inside_upsampling = {part.conv for part in network.modules() if isinstance(part, NearestUpsample)}
    for module in network.modules():  # an upsampled map counts, the coarse one that is repeated into it does not
        if isinstance(module, CONVOLUTIONS) and module not in inside_upsampling:
            module.register_forward_hook(lambda module, args, y: written.append(y.numel()))

    network(image(*TINY_PATCH[dims]))

    assert network.compute_conv_feature_map_size(TINY_PATCH[dims]) == sum(written)


@pytest.mark.parametrize("network", [UMambaBot, UMambaEnc, GuestsEverywhere])
@pytest.mark.parametrize("dims", [2, 3])
def test_feature_map_size_counts_what_mixers_keep(network, dims):
    full, twin = build(network, dims), build(network, dims, mixer="none")
    kept = []
    for module in full.modules():
        if isinstance(module, MixerSlot):
            module.mixer.register_forward_hook(
                lambda mixer, args, y: kept.append(mixer.saved_elements(math.prod(y.shape[1:-1])))
            )
    full(image(*TINY_PATCH[dims]))

    patch = TINY_PATCH[dims]
    assert full.compute_conv_feature_map_size(patch) - twin.compute_conv_feature_map_size(patch) == sum(kept)


def kept_for_backward(mixer, x):
    """Numbers that autograd keeps from a call of the mixer, each memory counted once, parameters not at all."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in mixer.parameters()}
    kept = {}

    def keep(value):
        memory = value.untyped_storage()
        if memory.data_ptr() not in parameters:
            kept[memory.data_ptr()] = (memory.nbytes() // value.element_size(), value)  # the value keeps its memory
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        y = mixer(x)
    assert y.shape == x.shape
    return sum(numbers for numbers, _ in kept.values())


@pytest.mark.parametrize("name", ["umamba_bot", "umamba_enc", "umamba_gen1_bot", "umamba_gen1_enc"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_every_backend_keeps_what_the_feature_map_size_counts(name, backend):
    """States are computed again in the backward pass, so that no backend needs a factor of its own."""
    patch = (64, 64)
    plan = arch_kwargs([[1, 1], [2, 2], [2, 2], [2, 2]], limit=64, patch_size=patch)
    network, twin = create(name, 1, 2, **plan), create(name, 1, 2, **plan, mixer="none")
    counted = network.compute_conv_feature_map_size(patch) - twin.compute_conv_feature_map_size(patch)
    inputs = []
    slots = [*network.encoder.mamba_layers.values(), network.bottleneck]
    mixers = [slot.mixer for slot in slots if slot is not None]
    for mixer in mixers:
        mixer.register_forward_pre_hook(lambda mixer, args: inputs.append(args[0].detach().clone().requires_grad_()))
    network(torch.randn(1, 1, *patch))

    with use(backend):
        kept = sum(kept_for_backward(mixer, x) for mixer, x in zip(mixers, inputs.copy(), strict=True))

    assert kept == pytest.approx(counted, rel=0.05)


def test_feature_map_size_of_a_mixer_at_the_bottleneck_is_next_to_nothing():
    with torch.device("meta"):
        bot, twin = UMambaBot(**published("B")), UMambaBot(**published("B"), mixer="none")
    patch = (128, 128, 128)

    share = bot.compute_conv_feature_map_size(patch) / twin.compute_conv_feature_map_size(patch) - 1
    assert 0 < share < 1e-3

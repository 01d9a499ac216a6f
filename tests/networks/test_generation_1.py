"""Generation 1 without Mamba is nnU-Net's own residual U-Net, weight by weight."""

import pydoc

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualUNet

from tests.networks.plans import TINY_PATCH, arch_kwargs, tiny
from umamba_seg.errors import UsageError
from umamba_seg.networks import UMambaBot, UMambaEnc, create

GEN1 = ("umamba_gen1_bot", "umamba_gen1_enc")
BLOCKS = [2, 1, 3, 1]  # a stem that is one convolution whatever the first stage has


def upstream(dims, **changes):
    """The same plan built by the package that nnU-Net builds from."""
    kwargs = {**tiny(dims), "n_conv_per_stage": BLOCKS, **changes}
    del kwargs["patch_size"]
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    for name in ("conv_op", "norm_op", "nonlin"):
        kwargs[name] = pydoc.locate(kwargs[name])
    return ResidualUNet(2, num_classes=3, deep_supervision=True, **kwargs)


def image(dims):
    return torch.randn(2, 2, *TINY_PATCH[dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", GEN1)
@pytest.mark.parametrize("dims", [2, 3])
def test_without_mixer_it_is_the_residual_u_net_of_nnunet(name, dims):
    torch.manual_seed(0)
    theirs = upstream(dims)
    ours = create(name, 2, 3, True, **tiny(dims, mixer="none", n_conv_per_stage=BLOCKS))
    weights = theirs.state_dict()

    ours.load_state_dict({key: weights[key] for key in ours.state_dict()})

    x = image(dims)
    torch.testing.assert_close(ours(x), theirs(x))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_strides_without_change_of_channels_are_pooled_without_weights():
    strides = [[1, 1], [2, 2], [1, 2], [2, 1]]
    changes = {"features_per_stage": 8, "strides": strides, "mixer": "none"}
    torch.manual_seed(0)
    theirs = upstream(2, **{key: value for key, value in changes.items() if key != "mixer"})
    ours = create("umamba_gen1_bot", 2, 3, True, **tiny(2, n_conv_per_stage=BLOCKS, **changes))
    ours.load_state_dict({key: theirs.state_dict()[key] for key in ours.state_dict()})

    x = torch.randn(1, 2, 8, 8)

    assert not any("encoder" in name and "skip" in name for name in ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("network", [UMambaBot, UMambaEnc])
def test_the_generation_is_part_of_the_plan_and_2_by_default(network):
    kwargs = tiny(2)
    names = {g: list(network(2, 3, **kwargs, generation=g).state_dict()) for g in (1, 2)}

    assert names[1] != names[2]
    assert list(network(2, 3, **kwargs).state_dict()) == names[2]
    with pytest.raises(UsageError, match=f"{network.__name__} has generation 1 or 2, got 3"):
        network(2, 3, **kwargs, generation=3)


@pytest.mark.parametrize(("name", "is_closed"), [("umamba_gen1_bot", False), ("umamba_gen1_enc", True)])
def test_only_enc_starts_its_blocks_as_the_identity(name, is_closed):
    network = create(name, 2, 3, **tiny(3))
    weights = dict(network.named_parameters())
    last = [value for key, value in weights.items() if key.endswith("conv2.norm.weight")]
    first = [value for key, value in weights.items() if key.endswith("conv1.norm.weight")]

    assert len(last) == len(first) == 2 * 4 + 2 * 3  # two blocks in each stage of encoder and decoder
    assert all((value == (0 if is_closed else 1)).all() for value in last)
    assert all((value == 1).all() for value in first)
    assert not any(value.any() for key, value in weights.items() if key.endswith("norm.bias"))


def test_it_takes_inputs_of_any_size_that_the_strides_divide():
    network = create("umamba_gen1_enc", 2, 3, **arch_kwargs([[1, 1], [2, 2], [2, 2]], patch_size=[8, 8]))

    assert network(torch.randn(1, 2, 12, 20)).shape == (1, 3, 12, 20)

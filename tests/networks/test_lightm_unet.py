import pytest
import torch
from torch import nn

from tests.networks import recorded
from tests.networks.single_resolution import INPUT_CHANNELS, NUM_CLASSES, build, image, spacings_told
from tests.networks.test_segmamba import both, parameters
from umamba_seg.errors import ModelError, UsageError
from umamba_seg.networks import LightMUNet, create, from_reference
from umamba_seg.networks.lightm_unet_blocks import RvmLayer
from umamba_seg.networks.lightm_unet_plan import arch_kwargs_from
from umamba_seg.networks.lightm_unet_weights import read_lightm_weights
from umamba_seg.networks.mixer_maker import MixerMaker

CASES = ["lightm_unet_2d", "lightm_unet_3d"]
COUNTS = {
    (2, 1, 2): 5_011_683,
    (2, 3, 2): 5_011_765,
    (3, 1, 2): 5_015_733,
    (3, 1, 3): 5_015_766,
    (3, 4, 4): 5_015_976,
    (3, 1, 14): 5_016_129,
}


def without_memory(dims=3, input_channels=1, num_classes=2, **changes):
    with torch.device("meta"):
        return LightMUNet(input_channels, num_classes, dims=dims, **changes)


def published_names():
    """As the authors' checkpoints list them."""
    mamba = {"A_log", "D", "in_proj.weight", "x_proj.weight", "out_proj.weight"} | both("conv1d", "dt_proj")
    rvm = {"skip_scale"} | both("norm", "proj") | {f"mamba.{part}" for part in mamba}
    names = {"convInit.0.conv.weight", "convInit.1.conv.weight"}
    for i, blocks in enumerate((1, 2, 2, 4)):
        names |= {f"down_layers.{i}.0.0.{part}" for part in rvm if i > 0}
        for block in (f"down_layers.{i}.{j + 1}" for j in range(blocks)):
            names |= both(f"{block}.norm1", f"{block}.norm2")
            names |= {f"{block}.conv{n}.{part}" for n in (1, 2) for part in rvm}
    for j in range(3):
        names |= both(f"up_layers.{j}.0.norm1", f"up_layers.{j}.0.norm2") | {f"up_samples.{j}.0.conv.weight"}
        names |= {f"up_layers.{j}.0.{part}" for part in ("skip_scale", "conv.0.conv.weight", "conv.1.conv.weight")}
    return names | both("conv_final.0", "conv_final.2.0.conv", "conv_final.2.1.conv")


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_match_the_recorded_network(case):
    record = recorded.load(case)
    network = from_reference(record["family"], record["config"], record["state_dict"])

    assert parameters(network) == record["n_parameters"]
    assert set(network.state_dict()) == set(record["state_dict"])
    recorded.assert_outputs([network(record["input"])], record["output"], record)
    network.decoder.deep_supervision = True  # the comparison reads lists
    recorded.assert_gradients(network, record)


@pytest.mark.parametrize("shape", COUNTS, ids=str)
def test_published_networks_have_the_published_number_of_parameters(shape):
    assert parameters(without_memory(*shape)) == COUNTS[shape]


@pytest.mark.parametrize(("dims", "rest"), [(2, 734_243), (3, 738_293)])
def test_twin_has_what_is_not_inside_mamba(dims, rest):
    assert parameters(without_memory(dims, mixer="none")) == rest
    assert parameters(without_memory(dims)) - rest == 4_277_440


@pytest.mark.parametrize("dims", [2, 3])
def test_parameter_names_are_the_published_ones(dims):
    names = set(without_memory(dims).state_dict())

    assert names == published_names()
    assert len(names) == 362


@pytest.mark.parametrize("mixer", ["mamba", "none", "conv"])
def test_layer_computes_the_formula(mixer):
    torch.manual_seed(0)
    layer = RvmLayer(MixerMaker(mixer, {}, "mamba", 3, None), 8, 16, (1, 1, 1))
    for parameter in layer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(2, 8, 3, 4, 5)

    tokens = x.permute(0, 2, 3, 4, 1)
    norm = lambda t: nn.functional.layer_norm(t, (8,), layer.norm.weight, layer.norm.bias)  # noqa: E731
    mixed = 0 if layer.mixer is None else layer.mixer(norm(tokens))
    expected = norm(mixed + layer.skip_scale * tokens) @ layer.proj.weight.T + layer.proj.bias

    torch.testing.assert_close(layer(x), expected.permute(0, 4, 1, 2, 3))


def test_slots_tell_their_mixers_the_spacing_of_the_map_that_they_read(monkeypatch):
    told = spacings_told(monkeypatch, "lightm_unet", spacing=[3.0, 1.0, 1.0], strides=[1, [1, 2, 2], [2, 2, 2]])

    # two in a block and one on the way to the next level; one, one and two blocks
    assert told == [*[(3.0, 1.0, 1.0)] * 3, *[(3.0, 2.0, 2.0)] * 3, *[(6.0, 4.0, 4.0)] * 4]


def test_strides_of_an_anisotropic_plan_are_an_option():
    network = build("lightm_unet", strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])

    assert network(image(size=[6, 16, 8])).shape[2:] == (6, 16, 8)


def test_a_map_of_one_voxel_is_taken():
    assert build("lightm_unet")(image(size=[4, 4, 4])).shape[2:] == (4, 4, 4)


def test_arguments_from_a_plan_are_the_published_ones_with_its_strides_where_two_does_not_fit():
    plan = {"features_per_stage": [32, 64], "strides": [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 3, [1, 2, 2]]}

    cube, slab = arch_kwargs_from(plan, [64, 64, 64]), arch_kwargs_from(plan, [20, 256, 224])

    assert parameters(without_memory(cube.pop("dims"), **cube)) == COUNTS[3, 1, 2]
    assert cube["strides"] == [[1, 1, 1], *[[2, 2, 2]] * 3]
    assert slab == {**cube, "dims": 3, "strides": plan["strides"][:4]}
    without_memory(**slab).check_size([20, 256, 224])


@pytest.mark.parametrize("dims", [2, 3])
def test_arguments_are_read_from_weights(dims):
    network = build("lightm_unet", dims, init_filters=16)

    arch_kwargs = read_lightm_weights(network.state_dict())
    loaded = create("lightm_unet", INPUT_CHANNELS, NUM_CLASSES, **arch_kwargs)
    loaded.load_state_dict(network.state_dict())

    assert arch_kwargs == {
        "dims": dims,
        "init_filters": 16,
        "blocks_down": [1, 1, 2],
        "blocks_up": [1, 2],
        "strides": [[1] * dims, [2] * dims, [2] * dims],
        "mixer": "mamba",
    }
    torch.testing.assert_close(loaded(image(dims)), network(image(dims)), rtol=0, atol=0)


def test_other_weights_are_refused():
    with pytest.raises(ModelError, match="no weights of LightM-UNet: they lack convInit"):
        read_lightm_weights(build("segmamba").state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_filters": 12}, "init_filters must be a multiple of 8, got 12"),
        ({"init_filters": 0}, "init_filters must be a multiple of 8, got 0"),
        ({"blocks_up": [1]}, "blocks_up needs 2 entries, one less than blocks_down, got 1"),
        ({"blocks_down": [1, 0, 1]}, "must be 1 or more"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        build("lightm_unet", **changes)

import pytest
import torch

from tests.networks import recorded
from tests.networks.single_resolution import build, image
from tests.networks.test_segmamba import both, parameters
from umamba_seg.networks import SegMambaV2, from_reference
from umamba_seg.networks.segmamba_blocks import LargeKernelConv

CASE = "segmamba_v2"


def without_memory(input_channels=4, num_classes=4, **changes):
    with torch.device("meta"):
        return SegMambaV2(input_channels, num_classes, **changes)


def published_names():
    """As the authors' checkpoints list them."""
    mamba = {"A_log", "D", "in_proj.weight", "x_proj.weight", "out_proj.weight"} | both("conv1d", "dt_proj")
    names = both(*(f"vit.downsample_layers.{i}.0" for i in range(4)))
    for i in range(4):
        names |= both(f"vit.mlps.{i}.fc1", f"vit.mlps.{i}.fc2")
        for block in (f"vit.gscs.{i}.{j}" for j in range(2)):
            names |= both(*(f"{block}.deep_path.{k}.block.0" for k in range(3)))
            names |= both(*(f"{block}.shortcut_path.{k}.block.0" for k in range(2)))
            names |= both(f"{block}.se.fc.0", f"{block}.se.fc.2")
    for layer in (f"vit.stages.{i}.{j}" for i in (2, 3) for j in range(2)):
        names |= both(f"{layer}.norm") | {f"{layer}.mamba.{part}" for part in mamba}
    names |= {f"encoder{k}.layer.conv{n}.conv.weight" for k in (1, 2, 3, 4, 5) for n in (1, 2, 3)}
    for k in (2, 3, 4, 5):
        names |= {f"decoder{k}.transp_conv.conv.weight"}
        names |= {f"decoder{k}.conv_block.conv{n}.conv.weight" for n in (1, 2, 3)}
    return names | {"decoder1.layer.conv1.conv.weight", "decoder1.layer.conv2.conv.weight"} | both("out.conv.conv")


def test_outputs_and_gradients_match_the_recorded_network():
    record = recorded.load(CASE)
    network = from_reference(record["family"], record["config"], record["state_dict"])

    assert parameters(network) == record["n_parameters"]
    assert set(network.state_dict()) == set(record["state_dict"])
    recorded.assert_outputs([network(record["input"])], record["output"], record)
    network.decoder.deep_supervision = True  # the comparison reads lists
    recorded.assert_gradients(network, record)


@pytest.mark.parametrize(
    ("input_channels", "num_classes", "expected"), [(4, 4, 138_776_824), (1, 2, 138_772_694), (1, 14, 138_773_282)]
)
def test_published_networks_have_the_published_number_of_parameters(input_channels, num_classes, expected):
    assert parameters(without_memory(input_channels, num_classes)) == expected


def test_most_parameters_are_in_the_large_convolutions():
    blocks = [module for module in without_memory().modules() if isinstance(module, LargeKernelConv)]

    assert sum(map(parameters, blocks)) == 81_184_500


def test_parameter_names_are_the_published_ones():
    names = set(without_memory().state_dict())

    assert names == published_names()
    assert len(names) == 215


def test_the_trunk_starts_from_the_first_encoder():
    network = build("segmamba_v2")
    seen = []
    network.vit.register_forward_pre_hook(lambda vit, args: seen.append(args[0]))
    x = image()

    network(x)

    torch.testing.assert_close(seen[0], network.encoder1(x))


def test_strides_of_an_anisotropic_plan_are_an_option():
    network = build("segmamba_v2", strides=[[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]])

    assert network(image(size=[6, 16, 24])).shape[2:] == (6, 16, 24)


def test_sizes_need_not_be_cut_into_slices():
    without_memory().check_size((48, 48, 48))

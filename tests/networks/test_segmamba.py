import pytest
import torch
from torch import nn

from tests.mixers.comparing import make_map, make_mixer
from tests.networks import recorded
from tests.networks.single_resolution import build, image, spacings_told
from umamba_seg.errors import UsageError
from umamba_seg.networks import SegMamba, from_reference
from umamba_seg.networks.segmamba_plan import arch_kwargs_from
from umamba_seg.networks.slot import MixerSlot

CASES = ["segmamba_v1_planes", "segmamba_v1_noplanes"]
PARTS = {  # parameters of 4 channels in and 4 classes
    "vit.downsample_layers": 840_720,
    "vit.stages": 3_121_920,
    "vit.gscs": 10_969_920,
    "vit.mlps": 785_520,
    "encoder1": 67_584,
    "encoder2": 377_856,
    "encoder3": 1_511_424,
    "encoder4": 6_045_696,
    "encoder5": 24_182_784,
    "decoder5": 14_598_144,
    "decoder4": 3_649_536,
    "decoder3": 912_384,
    "decoder2": 228_096,
    "decoder1": 124_416,
    "out": 196,
}


def without_memory(input_channels=4, num_classes=4, **changes):
    with torch.device("meta"):
        return SegMamba(input_channels, num_classes, **changes)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def both(*names):
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def published_names(suffixes=("", "_b", "_s")):
    """As the authors' checkpoints list them."""
    names = both("vit.downsample_layers.0.0", *(f"vit.downsample_layers.{i}.1" for i in (1, 2, 3)))
    for i in range(4):
        names |= both(*(f"vit.gscs.{i}.{part}" for part in ("proj", "proj2", "proj3", "proj4")))
        names |= both(f"vit.mlps.{i}.fc1", f"vit.mlps.{i}.fc2")
        for j in range(2):
            layer = f"vit.stages.{i}.{j}"
            names |= {f"{layer}.mamba.{part}_proj.weight" for part in ("in", "out")} | both(f"{layer}.norm")
            for s in suffixes:
                names |= {f"{layer}.mamba.{part}" for part in (f"A{s}_log", f"D{s}", f"x_proj{s}.weight")}
                names |= both(f"{layer}.mamba.conv1d{s}", f"{layer}.mamba.dt_proj{s}")
    names |= {f"encoder{k}.layer.conv{n}.conv.weight" for k in (1, 2, 3, 4, 5) for n in (1, 2, 3)}
    for k in (2, 3, 4, 5):
        names |= {f"decoder{k}.transp_conv.conv.weight"}
        names |= {f"decoder{k}.conv_block.conv{n}.conv.weight" for n in (1, 2, 3)}
    return names | {"decoder1.layer.conv1.conv.weight", "decoder1.layer.conv2.conv.weight"} | both("out.conv.conv")


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_match_the_recorded_network(case):
    record = recorded.load(case)
    network = from_reference(record["family"], record["config"], record["state_dict"])

    assert parameters(network) == record["n_parameters"]
    recorded.assert_outputs([network(record["input"])], record["output"], record)
    network.decoder.deep_supervision = True  # the comparison reads lists
    recorded.assert_gradients(network, record)


def test_slices_of_depth_are_the_published_ones_for_inputs_of_depth_128():
    record = recorded.load("segmamba_v1_planes")
    config = record["config"]
    network = SegMamba(
        config["in_chans"],
        config["out_chans"],
        depths=config["depths"],
        features=config["feat_size"],
        hidden=config["hidden_size"],
    )
    network.load_state_dict(record["state_dict"])

    assert record["input"].shape[2] == 128
    recorded.assert_outputs([network(record["input"])], record["output"], record)


def test_slices_of_depth_are_not_the_published_ones_for_other_inputs():
    depth, published = build("segmamba"), build("segmamba", slices=[64, 32])
    x = image(size=[16, 16, 16])

    assert not torch.allclose(depth(x), published(x))
    torch.testing.assert_close(depth(x), build("segmamba", slices=[8, 4])(x))


def test_third_route_is_the_raster_of_a_map_whose_depth_is_turned_to_be_the_fast_axis():
    """The output projection is linear, so what the third route adds is the difference to a layer without it."""
    three = make_mixer("segmamba", 6, 3)
    two, one = make_mixer("segmamba", 6, 3, directions=2), make_mixer("segmamba", 6, 3, directions=1)
    weights = three.state_dict()
    two.load_state_dict({name: weights[name] for name in two.state_dict()})
    third = {name.replace("_s_log", "_log").replace("_s.", "."): name for name in weights if "_s" in name}
    third["D"] = "D_s"
    one.load_state_dict({name: weights[third.get(name, name)] for name in one.state_dict()})
    x = make_map(1, 3, 4, 5, 6)

    turned = one(x.movedim(1, 3)).movedim(3, 1)

    torch.testing.assert_close(three(x) - two(x), turned, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("input_channels", "num_classes", "expected"), [(4, 4, 67_416_196), (1, 2, 67_362_674), (1, 14, 67_363_262)]
)
def test_published_networks_have_the_published_number_of_parameters(input_channels, num_classes, expected):
    assert parameters(without_memory(input_channels, num_classes)) == expected


def test_every_part_has_the_published_number_of_parameters():
    network = without_memory()

    assert {name: parameters(network.get_submodule(name)) for name in PARTS} == PARTS


@pytest.mark.parametrize(("directions", "expected", "suffixes"), [(2, 67_159_876, ("", "_b")), (1, 66_903_556, ("",))])
def test_earlier_generations_have_fewer_parameters(directions, expected, suffixes):
    network = without_memory(directions=directions)

    assert parameters(network) == expected
    assert set(network.state_dict()) == published_names(suffixes)


def test_parameter_names_are_the_published_ones():
    names = set(without_memory().state_dict())

    assert names == published_names()
    assert len(names) == 291
    assert set(without_memory(48).state_dict()) == names - {"encoder1.layer.conv3.conv.weight"}


@pytest.mark.parametrize("case", CASES)
def test_names_are_the_recorded_ones(case):
    record = recorded.load(case)

    assert set(from_reference(record["family"], record["config"]).state_dict()) == set(record["state_dict"])


def test_reference_networks_start_as_published_and_others_with_small_steps():
    config = {"in_chans": 1, "out_chans": 2, "depths": [1] * 4, "feat_size": [8, 8, 8, 8], "hidden_size": 8}
    published, ours = from_reference("segmamba_v1", config), build("segmamba")

    first_step = published.vit.stages[0][0].mixer.dt_proj_b.bias
    assert nn.functional.softplus(first_step).min() > 0.3
    assert nn.functional.softplus(ours.vit.stages[0][0].mixer.dt_proj_b.bias).max() < 0.11


def test_layers_of_the_first_releases_replace_the_map():
    adding, replacing = build("segmamba"), build("segmamba", layer_residual=False)
    x = make_map(1, 8, 4, 4, 4)
    slots = [network.vit.stages[0][0] for network in (adding, replacing)]

    torch.testing.assert_close(slots[0](x), x + slots[1](x))


def test_other_mixers_always_add_to_the_map():
    network = build("segmamba", mixer="conv", layer_residual=False)

    assert all(slot.is_residual for slot in network.modules() if isinstance(slot, MixerSlot))


def test_guests_stand_under_their_own_name_and_take_no_options_of_segmamba():
    names = set(build("segmamba", mixer="mamba", slices=[8, 4], directions=3).state_dict())
    guests = set(build("segmamba", mixer="axes", slices=[8, 4], directions=2).state_dict())

    assert "vit.stages.0.0.mamba.A_log" in names
    assert "vit.stages.0.0.axes.in_proj.weight" in guests
    assert not any(".mamba." in name for name in guests)


def test_slots_tell_their_mixers_the_spacing_of_their_maps(monkeypatch):
    told = spacings_told(monkeypatch, "segmamba", spacing=[3.0, 1.0, 1.0], strides=[1, [1, 2, 2], [2, 2, 2]])

    assert told == [(3.0, 2.0, 2.0), *[(6.0, 4.0, 4.0)] * 2]


def test_strides_of_an_anisotropic_plan_are_an_option():
    network = build("segmamba", strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])

    y = network(image(size=[6, 16, 8]))

    assert y.shape[2:] == (6, 16, 8)
    assert network.decoder2.transp_conv.conv.kernel_size == (1, 2, 2)
    assert network.vit.downsample_layers[0][0].kernel_size == (7, 7, 7)


def test_arguments_from_a_plan_are_the_published_ones_with_its_strides_where_two_does_not_fit():
    plan = {"features_per_stage": [32, 64], "strides": [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 3, [1, 2, 2]]}

    cube, slab = arch_kwargs_from(plan, [128, 128, 128]), arch_kwargs_from(plan, [40, 224, 192])

    assert parameters(without_memory(**cube)) == 67_416_196
    assert cube["strides"][1] == [2, 2, 2]
    assert slab == {**cube, "strides": plan["strides"][:5]}
    without_memory(**slab).check_size([40, 224, 192])


def test_features_follow_those_of_the_plan():
    plan = {"features_per_stage": [16], "strides": [[1, 1]] + [[2, 2]] * 4}

    kwargs = arch_kwargs_from(plan, [64, 64])

    assert (kwargs["features"], kwargs["hidden"], kwargs["dims"]) == ([24, 48, 96, 192], 384, 2)


@pytest.mark.parametrize("size", [(32, 32, 32), (64, 64, 64), (16, 32, 64), (160, 160, 160)])
def test_published_slices_take_the_sizes_they_can_cut(size):
    without_memory(slices=[64, 32, 16, 8]).check_size(size)


@pytest.mark.parametrize(
    ("size", "message", "hint"),
    [
        ((48, 48, 48), "48×48×48 stage 2 has 216 voxels, no multiple of 16", "use 48×64×64"),
        ((32, 32, 48), "stage 3 has 12 voxels", "use 32×32×64"),
        ((16, 16, 32), "stage 3 has 2 voxels", "use 32×32×32"),
    ],
)
def test_published_slices_refuse_sizes_they_cannot_cut(size, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        without_memory(slices=[64, 32, 16, 8]).check_size(size)
    assert caught.value.how[0] == hint
    assert 'slices="depth"' in caught.value.how[1]
    without_memory(slices=[64, 32, 16, 8]).check_size([int(n) for n in hint.removeprefix("use ").split("×")])


@pytest.mark.parametrize(
    "changes", [{}, {"slices": [64, 32, 16, 8], "directions": 2}, {"slices": [64, 32, 16, 8], "mixer": "none"}]
)
def test_sizes_are_free_without_slices(changes):
    without_memory(**changes).check_size((48, 48, 48))


def test_an_input_that_becomes_one_voxel_is_refused():
    with pytest.raises(UsageError, match="16×16×16 becomes a single voxel") as caught:
        without_memory().check_size((16, 16, 16))
    assert caught.value.how == ("use 16×16×32 or larger",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": [1]}, "depths needs 2 entries, as features has, got 1"),
        ({"slices": "planes"}, "slices must be \"depth\" or 2 numbers, one for each stage; got 'planes'"),
        ({"slices": [8]}, "slices must be"),
        ({"slices": [8, 0]}, "slices must be"),
        ({"directions": 4}, "1, 2 or 3 directions"),
        ({"strides": [2, 2, 2]}, r"must start with full resolution, \[1, 1, 1\], got \[2, 2, 2\]"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        build("segmamba", **changes)

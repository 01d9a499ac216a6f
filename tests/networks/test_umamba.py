"""The published facts of U-Mamba, both generations: sizes of its networks and where its Mamba layers are."""

import pytest
import torch

from tests.networks.plans import arch_kwargs, published
from umamba_seg.networks import create

NETWORKS = ("umamba_bot", "umamba_enc", "umamba_gen1_bot", "umamba_gen1_enc")
PARAMETERS = {  # by plan, in the order of NETWORKS
    "A": (41_945_158, 42_842_798, 57_832_166, 59_105_766),
    "B": (42_124_692, 42_755_220, 58_410_964, 59_684_564),
    "C": (41_937_108, 43_056_788, 57_496_436, 58_770_036),
    "D": (47_524_592, 47_680_592, 63_335_696, 67_324_944),
    "E": (64_797_301, 64_014_261, 86_150_037, 91_835_029),
    "F": (47_533_012, 47_015_538, 63_344_180, 67_333_428),
}
TENSORS = {
    **dict.fromkeys("ABC", (207, 262, 238, 293)),
    **dict.fromkeys("DF", (247, 280, 277, 343)),
    "E": (271, 304, 316, 393),
}
PARTS = {
    ("umamba_bot", "A"): {"mamba_layer": 675_840},
    ("umamba_enc", "A"): {
        "encoder.stem": 28_384,
        "encoder.stages": 15_370_208,
        "encoder.mamba_layers": 1_573_480,
        "decoder.stages": 25_631_328,
        "decoder.upsample_layers": 228_128,
        "decoder.seg_layers": 11_270,
    },
    ("umamba_gen1_bot", "A"): {"ln": 640, "mamba": 675_840 - 640},
    ("umamba_gen1_enc", "A"): {
        "encoder.stem": 384,
        "encoder.stages": 29_870_720,
        "encoder.mamba_layers": 1_949_440,
        "decoder.stages": 25_872_320,
        "decoder.transpconvs": 1_401_632,
        "decoder.seg_layers": 11_270,
    },
    ("umamba_bot", "D"): {"mamba_layer": 1_695_744},
    ("umamba_enc", "D"): {
        "encoder.stem": 29_024,
        "encoder.stages": 16_438_880,
        "encoder.mamba_layers": 1_851_744,
        "decoder.stages": 28_648_992,
        "decoder.upsample_layers": 699_872,
        "decoder.seg_layers": 12_080,
    },
}
# Stages with a slot of Enc, with the voxels of those that are mixed over their channels
SLOTS = {
    "A": {0: None, 1: None, 2: None, 3: None, 4: None, 5: 210},
    "B": {0: None, 1: None, 2: None, 3: None, 4: None, 5: 64},
    "C": {0: None, 1: None, 2: None, 3: None, 4: None, 5: 280},
    "D": {0: None, 2: None, 4: None, 6: 60},
    "E": {1: None, 3: None, 5: 256, 7: 16},
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(network, plan, **changes):
    with torch.device("meta"):
        return create(network, **published(plan), **changes)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("plan", PARAMETERS)
def test_networks_of_published_plans_have_the_published_size(plan, network):
    built = on_meta(network, plan)

    column = NETWORKS.index(network)
    assert count(built) == PARAMETERS[plan][column]
    assert len(built.state_dict()) == TENSORS[plan][column]


@pytest.mark.parametrize(("network", "plan"), PARTS)
def test_every_part_of_a_published_plan_has_the_published_size(network, plan):
    built, parts = on_meta(network, plan), PARTS[network, plan]

    assert {name: count(built.get_submodule(name)) for name in parts} == parts


@pytest.mark.parametrize("plan", SLOTS)
def test_enc_has_its_slots_and_their_tokens_where_published(plan):
    slots = on_meta("umamba_enc", plan).encoder.mamba_layers

    widths = {int(s): slot.norm.normalized_shape[0] if slot.is_channel_wise else None for s, slot in slots.items()}
    assert widths == SLOTS[plan]


@pytest.mark.parametrize("network", ["umamba_bot", "umamba_gen1_bot"])
@pytest.mark.parametrize("plan", "ABCDEF")
def test_bot_has_one_slot_that_mixes_voxels(plan, network):
    built = on_meta(network, plan)

    assert len(built.encoder.mamba_layers) == 0
    assert not built.bottleneck.is_channel_wise
    assert built.only_size is None


@pytest.mark.parametrize("plan", "ABCDEF")
def test_enc_of_generation_1_mixes_voxels_behind_every_stage(plan):
    built = on_meta("umamba_gen1_enc", plan)

    assert [int(s) for s in built.encoder.mamba_layers] == list(range(built.topology.n_stages))
    assert not any(slot.is_channel_wise for slot in built.encoder.mamba_layers.values())
    assert built.only_size is None


@pytest.mark.parametrize("plan", "ABCDEF")
def test_without_channel_tokens_enc_takes_any_size(plan):
    built = on_meta("umamba_enc", plan, channel_tokens=False)
    slots = built.encoder.mamba_layers

    assert [int(s) for s in slots] == [int(s) for s in on_meta("umamba_enc", plan).encoder.mamba_layers]
    assert not any(slot.is_channel_wise for slot in slots.values())
    built.check_size(built.topology.total_stride)


@pytest.mark.parametrize(
    ("n_stages", "encoder", "decoder"),
    [
        (3, (2, 2, 1), (2, 2)),
        (5, (2, 2, 2, 1, 1), (2, 2, 2, 1)),
        (6, (2, 2, 2, 1, 1, 1), (2, 2, 2, 1, 1)),
    ],
)
def test_stages_from_half_on_have_one_block(n_stages, encoder, decoder):
    with torch.device("meta"):
        built = create("umamba_bot", 1, 2, **arch_kwargs([[2, 2]] * n_stages))

    assert tuple(map(len, built.encoder.stages)) == encoder
    assert tuple(map(len, built.decoder.stages)) == decoder
    assert len(built.encoder.stem) == encoder[0]


@pytest.mark.parametrize(
    ("network", "blocks"), [("umamba_bot", (1, 3, 4, 1, 1, 1)), ("umamba_gen1_bot", (1, 3, 4, 6, 6, 6))]
)
def test_blocks_of_resenc_plans_are_read_too(network, blocks):
    kwargs = arch_kwargs([[2, 2]] * 6)
    del kwargs["n_conv_per_stage"]
    with torch.device("meta"):
        built = create(network, 1, 2, **kwargs, n_blocks_per_stage=[1, 3, 4, 6, 6, 6])

    assert built.topology.encoder_blocks == blocks
    assert tuple(len(getattr(stage, "blocks", stage)) for stage in built.encoder.stages) == blocks


@pytest.mark.parametrize(
    ("network", "plan", "shape"),
    [
        ("umamba_bot", "D", (32, 32, 3, 3)),
        ("umamba_bot", "A", (32, 64, 1, 3, 3)),
        ("umamba_gen1_bot", "D", (32, 64, 3, 3)),
        ("umamba_gen1_bot", "A", (32, 64, 1, 3, 3)),
    ],
)
def test_in_2d_the_finest_decoder_stage_of_generation_2_reads_no_skip(network, plan, shape):
    stage = on_meta(network, plan).decoder.stages[-1]

    assert next(value.shape for name, value in stage.named_parameters() if "conv1" in name) == shape


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("encoder.stem.0.conv1.weight", (32, 1, 1, 3, 3)),
        ("encoder.stages.1.0.conv3.weight", (64, 32, 1, 1, 1)),
        ("decoder.stages.0.0.conv1.weight", (320, 640, 3, 3, 3)),
        ("decoder.stages.4.0.conv1.weight", (32, 64, 1, 3, 3)),
        ("encoder.mamba_layers.5.mamba.in_proj.weight", (840, 210)),
    ],
)
def test_tensors_of_plan_a_have_the_published_shapes(name, shape):
    assert on_meta("umamba_enc", "A").state_dict()[name].shape == shape

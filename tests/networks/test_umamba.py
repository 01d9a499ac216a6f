"""The published facts of U-Mamba, generation 2: sizes of its networks and where its Mamba layers are."""

import pytest
import torch

from tests.networks.plans import arch_kwargs, published
from umamba_seg.networks import UMambaBot, UMambaEnc

PARAMETERS = {
    ("A", UMambaBot): 41_945_158,
    ("A", UMambaEnc): 42_842_798,
    ("B", UMambaBot): 42_124_692,
    ("B", UMambaEnc): 42_755_220,
    ("C", UMambaBot): 41_937_108,
    ("C", UMambaEnc): 43_056_788,
    ("D", UMambaBot): 47_524_592,
    ("D", UMambaEnc): 47_680_592,
    ("E", UMambaBot): 64_797_301,
    ("E", UMambaEnc): 64_014_261,
    ("F", UMambaBot): 47_533_012,
    ("F", UMambaEnc): 47_015_538,
}
TENSORS = {
    UMambaBot: {"A": 207, "B": 207, "C": 207, "D": 247, "E": 271, "F": 247},
    UMambaEnc: {"A": 262, "B": 262, "C": 262, "D": 280, "E": 304, "F": 280},
}
PARTS_OF_PLAN_A = {
    "encoder.stem": 28_384,
    "encoder.stages": 15_370_208,
    "encoder.mamba_layers": 1_573_480,
    "decoder.stages": 25_631_328,
    "decoder.upsample_layers": 228_128,
    "decoder.seg_layers": 11_270,
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


def on_meta(network, plan):
    with torch.device("meta"):
        return network(**published(plan))


@pytest.mark.parametrize(("plan", "network"), PARAMETERS)
def test_networks_of_published_plans_have_the_published_size(plan, network):
    built = on_meta(network, plan)

    assert count(built) == PARAMETERS[plan, network]
    assert len(built.state_dict()) == TENSORS[network][plan]


def test_every_part_of_a_published_plan_has_the_published_size():
    built = on_meta(UMambaEnc, "A")

    assert {name: count(built.get_submodule(name)) for name in PARTS_OF_PLAN_A} == PARTS_OF_PLAN_A


@pytest.mark.parametrize("plan", SLOTS)
def test_enc_has_its_slots_and_their_tokens_where_published(plan):
    slots = on_meta(UMambaEnc, plan).encoder.mamba_layers

    widths = {int(s): slot.norm.normalized_shape[0] if slot.is_channel_wise else None for s, slot in slots.items()}
    assert widths == SLOTS[plan]


@pytest.mark.parametrize("plan", "ABCDEF")
def test_bot_has_one_slot_that_mixes_voxels(plan):
    built = on_meta(UMambaBot, plan)

    assert len(built.encoder.mamba_layers) == 0
    assert not built.mamba_layer.is_channel_wise
    assert built.only_size is None


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
        built = UMambaBot(1, 2, **arch_kwargs([[2, 2]] * n_stages))

    assert tuple(map(len, built.encoder.stages)) == encoder
    assert tuple(map(len, built.decoder.stages)) == decoder
    assert len(built.encoder.stem) == encoder[0]


def test_blocks_of_resenc_plans_are_read_too():
    kwargs = arch_kwargs([[2, 2]] * 6)
    del kwargs["n_conv_per_stage"]
    with torch.device("meta"):
        built = UMambaBot(1, 2, **kwargs, n_blocks_per_stage=[1, 3, 4, 6, 6, 6])

    assert tuple(map(len, built.encoder.stages)) == (1, 3, 4, 1, 1, 1)


def test_in_2d_the_finest_decoder_stage_reads_no_skip():
    assert on_meta(UMambaBot, "D").decoder.stages[-1][0].conv1.weight.shape == (32, 32, 3, 3)
    assert on_meta(UMambaBot, "A").decoder.stages[-1][0].conv1.weight.shape == (32, 64, 1, 3, 3)

import copy

import pytest

from tests.networks.plans import PLAN_DRIVEN, TINY_PATCH, tiny
from umamba_seg.networks import NETWORKS, create, find
from umamba_seg.networks.architecture import architecture, with_mixer

PATCH = TINY_PATCH[3]


@pytest.fixture
def like():
    """An architecture block as nnU-Net's planner writes it."""
    kwargs = {key: value for key, value in tiny(3).items() if key != "patch_size"}
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


@pytest.mark.parametrize("name", PLAN_DRIVEN)
def test_a_block_holds_the_plan_and_what_the_name_stands_for(name, like):
    before = copy.deepcopy(like)

    block = architecture(find(name), like, PATCH, mixer="none", spacing=[2.5, 1, 1])

    ours = {"mixer": "none", "spacing": [2.5, 1.0, 1.0], **find(name).fixed}
    if name == "umamba_enc":
        ours["patch_size"] = PATCH
    assert block == {
        "network_class_name": find(name).class_path,
        "arch_kwargs": {**like["arch_kwargs"], **ours},
        "_kw_requires_import": like["_kw_requires_import"],
    }
    assert like == before


def test_the_generation_stands_in_the_plan(like):
    assert architecture(find("umamba_gen1_enc"), like, PATCH)["arch_kwargs"]["generation"] == 1
    assert "generation" not in architecture(find("umamba_enc"), like, PATCH)["arch_kwargs"]


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_word_the_mixer_is_that_of_the_paper_and_the_spacing_unknown(name, like):
    kwargs = architecture(find(name), like, [64, 64, 64])["arch_kwargs"]

    assert kwargs["mixer"] == find(name).mixer
    assert "spacing" not in kwargs


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_built_from_its_block(name, like):
    block = architecture(find(name), like, [64, 64, 64], spacing=[2.5, 1, 1])

    network = create(name, 1, 2, **block["arch_kwargs"])

    assert set(block["_kw_requires_import"]) <= block["arch_kwargs"].keys()
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


def test_a_twin_differs_in_one_word(like):
    block = architecture(find("umamba_enc"), like, PATCH)

    twin = with_mixer(block, "none")

    assert twin["arch_kwargs"].pop("mixer") == "none"
    assert block["arch_kwargs"].pop("mixer") == "mamba"
    assert twin == block

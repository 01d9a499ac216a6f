import copy

import pytest
import torch

from tests.networks import recorded
from umamba_seg.errors import ModelError, UsageError
from umamba_seg.networks import from_reference

SMALLEST = "umamba_bot_2d_even"


@pytest.fixture
def record():
    return recorded.load(SMALLEST)


@pytest.mark.parametrize("case", recorded.CASES)
def test_outputs_and_gradients_match_the_recorded_network(case):
    record = recorded.load(case)
    network = from_reference(record["family"], record["config"], record["state_dict"])

    assert sum(parameter.numel() for parameter in network.parameters()) == record["n_parameters"]
    recorded.assert_outputs(network(record["input"]), record["output"], record)
    recorded.assert_gradients(network, record)
    network.decoder.deep_supervision = False
    recorded.assert_outputs([network(record["input"])], [record["output_no_ds"]], record)


@pytest.mark.parametrize("case", recorded.CASES)
def test_names_are_the_recorded_ones_without_aliases(case):
    record = recorded.load(case)
    first_names = [name for name in record["state_dict"] if name not in record["aliases"]]

    network = from_reference(record["family"], record["config"])

    assert set(network.state_dict()) == set(first_names)


def test_aliases_may_be_left_out(record):
    first_names = {name: value for name, value in record["state_dict"].items() if name not in record["aliases"]}

    network = from_reference(record["family"], record["config"], first_names)

    recorded.assert_outputs(network(record["input"]), record["output"], record)


def test_config_and_weights_are_not_changed(record):
    config, names = copy.deepcopy(record["config"]), list(record["state_dict"])

    from_reference(record["family"], record["config"], record["state_dict"])

    assert record["config"] == config
    assert list(record["state_dict"]) == names


def test_without_weights_convolutions_start_like_nnunet_and_mixers_by_themselves(record):
    torch.manual_seed(0)
    network = from_reference(record["family"], record["config"])
    weight = network.decoder.stages[0][0].conv1.weight

    assert weight.std().item() == pytest.approx((2 / 1.0001 / weight[0].numel()) ** 0.5, rel=0.05)
    assert (network.encoder.stem[0].conv3.bias == 0).all()
    assert (network.mamba_layer.mixer.D == 1).all()
    assert network.mamba_layer.mixer.conv1d.bias.abs().min() > 0


@pytest.mark.parametrize("name", ["encoder.stem.0.conv3.bias", "mamba_layer.mamba.D", "decoder.seg_layers.1.weight"])
def test_a_missing_weight_is_named(record, name):
    del record["state_dict"][name]

    with pytest.raises(ModelError, match=f"they lack {name}"):
        from_reference(record["family"], record["config"], record["state_dict"])


@pytest.mark.parametrize("name", ["mamba.D", "decoder.encoder.stem.9.bias", "encoder.stem.1.conv1.all_modules.2.bias"])
def test_an_unexpected_weight_is_named(record, name):
    record["state_dict"][name] = torch.zeros(1)

    with pytest.raises(ModelError, match=f"they have unexpected {name}"):
        from_reference(record["family"], record["config"], record["state_dict"])


def test_a_wrong_shape_is_named(record):
    record["state_dict"]["encoder.stem.0.conv3.bias"] = torch.zeros(7)

    with pytest.raises(ModelError, match=r"encoder.stem.0.conv3.bias \(7,\) instead of \(8,\)"):
        from_reference(record["family"], record["config"], record["state_dict"])


def test_weights_of_the_other_network_are_refused_in_a_few_words(record):
    with pytest.raises(ModelError, match=r"lack encoder.mamba_layers.* more.*unexpected mamba_layer") as caught:
        from_reference("umamba_enc", record["config"], record["state_dict"])
    assert len(str(caught.value)) < 1000


def test_an_unknown_family_is_answered_with_the_known(record):
    with pytest.raises(UsageError, match=r"one of umamba_bot, umamba_enc, .*; got 'umamba_top'"):
        from_reference("umamba_top", record["config"])


def test_weights_of_the_other_generation_are_refused(record):
    with pytest.raises(ModelError, match=r"lack encoder.stem.convs.0.* more.*unexpected encoder.stem.0.conv1"):
        from_reference("umamba_gen1_bot", record["config"], record["state_dict"])


@pytest.mark.parametrize("family", ["umamba_gen1_bot", "umamba_gen1_enc"])
def test_every_kind_of_alias_of_generation_1_is_dropped(record, family):
    """Stem, blocks and projected skips hold each layer twice, and the decoder holds the encoder."""
    network = from_reference(family, record["config"])
    weights = network.state_dict()
    layers = [("conv", "all_modules.0"), ("norm", "all_modules.1")]
    aliases = {
        name.replace(f".{layer}.", f".{alias}."): value
        for layer, alias in layers
        for name, value in weights.items()
        if f".{layer}." in name
    }
    weights_and_aliases = {**weights, **aliases}
    weights_and_aliases |= {
        f"decoder.{name}": value for name, value in weights_and_aliases.items() if name.startswith("encoder.")
    }

    loaded = from_reference(family, record["config"], weights_and_aliases)

    for kind in ("stem.convs.0", "blocks.0.conv1", "blocks.1.conv2", "blocks.0.skip.1"):
        assert any(f"{kind}.all_modules.0" in name for name in aliases)
    assert list(loaded.state_dict()) == list(weights)
    torch.testing.assert_close(loaded(record["input"]), network(record["input"]), rtol=0, atol=0)


def test_wrong_keys_of_a_config_are_named(record):
    plan = record["config"]["configuration"]
    plan["kernels"] = plan.pop("conv_kernel_sizes")

    with pytest.raises(UsageError, match="configuration lacks conv_kernel_sizes, has unknown kernels"):
        from_reference(record["family"], record["config"])

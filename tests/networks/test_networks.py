"""What every network that reads the stages of a plan does, with each mixer, in 2D and 3D."""

import copy
import json
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from tests.networks.plans import KINDS, TINY_PATCH, tiny
from umamba_seg.mixers import MIXERS
from umamba_seg.networks import NETWORKS, create
from umamba_seg.networks.architecture import architecture
from umamba_seg.networks.slot import MixerSlot

NAMES = json.loads((Path(__file__).parent / "parameter_names.json").read_text())
WITH_OWN_MIXER_AND_WITHOUT = [(name, dims, mixer) for name, dims in KINDS for mixer in (NETWORKS[name].mixer, "none")]
WITH_MIXERS = WITH_OWN_MIXER_AND_WITHOUT + [
    ("umamba_enc", dims, mixer) for dims in (2, 3) for mixer in MIXERS if mixer not in ("mamba", "none")
]
CLASSES = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def build(name, dims, *, deep_supervision=True, **changes):
    torch.manual_seed(0)
    return create(name, 2, 3, deep_supervision, **tiny(dims, **changes))


def image(dims, batch=1):
    return torch.randn(batch, 2, *TINY_PATCH[dims], generator=torch.Generator().manual_seed(1))


def slots_of(network):
    """Names of the parameters inside the slots; the plain bottleneck of generation 1 has no module of its own."""
    return {name for name in network.state_dict() if name.startswith(("ln.", "mamba.")) or "mamba_layer" in name}


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_network_runs_forward_and_backward(name, dims, mixer):
    network = build(name, dims, mixer=mixer)
    x = image(dims, batch=2)

    outputs = network(x)
    sum(y.square().mean() for y in outputs).backward()

    strides = network.topology.strides
    assert [tuple(y.shape[2:]) for y in outputs] == network.topology.map_sizes(x.shape[2:])[:-1]
    assert len(outputs) == len(strides) - 1
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_parameter_names_never_change(name, dims):
    assert list(build(name, dims).state_dict()) == NAMES[f"{name} {dims}d"]


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_every_tensor_has_one_name(name, dims):
    weights = build(name, dims).state_dict()

    assert len({value.data_ptr() for value in weights.values()}) == len(weights)


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_OWN_MIXER_AND_WITHOUT)
def test_plans_build_networks_that_load_each_others_weights(name, dims, mixer):
    kwargs = {key: value for key, value in tiny(dims).items() if key != "patch_size"}
    like = {"arch_kwargs": kwargs, "_kw_requires_import": CLASSES}
    block = architecture(NETWORKS[name], like, TINY_PATCH[dims], mixer=mixer, spacing=[1.5] * dims)
    block["arch_kwargs"]["mixer_options"] = {"states": 4}
    before = copy.deepcopy(block)
    path, kwargs, classes = block.values()
    trained = get_network_from_plans(path, kwargs, classes, 2, 3, deep_supervision=True)
    predicting = get_network_from_plans(path, kwargs, classes, 2, 3, deep_supervision=False)

    predicting.load_state_dict(trained.state_dict())

    x = image(dims)
    assert block == json.loads(json.dumps(block)) == before
    torch.testing.assert_close(predicting(x), trained(x)[0])
    trained.decoder.deep_supervision = False
    torch.testing.assert_close(predicting(x), trained(x))


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_tuples_are_taken_for_lists_and_left_alone(name, dims):
    lists = tiny(dims)
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in lists.items()}
    before = copy.deepcopy(tuples)

    network = create(name, 2, 3, **tuples)

    assert tuples == before
    assert network.topology == create(name, 2, 3, **lists).topology


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_nothing_is_printed(name, dims, capsys):
    build(name, dims)(image(dims))

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_twin_is_the_network_without_its_slots(name, dims):
    network, twin = build(name, dims), build(name, dims, mixer="none").state_dict()
    slots = slots_of(network)

    assert slots
    assert list(twin) == [name for name in network.state_dict() if name not in slots]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("generation", ["", "_gen1"])
def test_bot_and_enc_have_the_same_twin(dims, generation):
    bot, enc = (build(f"umamba{generation}_{name}", dims, mixer="none") for name in ("bot", "enc"))
    bot.load_state_dict(enc.state_dict())
    x = image(dims)

    torch.testing.assert_close(bot(x), enc(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_a_copy_is_a_network_of_its_own(name, dims):
    network, x = build(name, dims, deep_supervision=False), image(dims)
    before = network(x)
    copied = copy.deepcopy(network)

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)

    torch.testing.assert_close(copied(x), before, rtol=0, atol=0)
    assert copied.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_network_is_built_without_memory(name, dims, mixer):
    with torch.device("meta"):
        network = create(name, 2, 3, **tiny(dims, mixer=mixer))

    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_network_compiles_in_one_piece(name, dims):
    network, x = build(name, dims), image(dims)

    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_network_exports_with_any_batch(name, dims):
    network = build(name, dims, deep_supervision=False).eval()
    batch = torch.export.Dim("batch", min=1, max=16)

    exported = torch.export.export(network, (image(dims, batch=2),), dynamic_shapes=({0: batch},))

    x = image(dims, batch=3)
    torch.testing.assert_close(exported.module()(x), network(x))


def test_slots_are_modules_or_hidden_with_parts_that_are():
    plain, slot = build("umamba_gen1_bot", 3), build("umamba_bot", 3)

    assert not any(isinstance(module, MixerSlot) for module in plain.modules())
    assert isinstance(plain.bottleneck, MixerSlot)
    assert (plain.bottleneck.norm, plain.bottleneck.mixer) == (plain.ln, plain.mamba)
    assert slot.bottleneck is slot.mamba_layer

"""What every registered network does, with each mixer, in 2D and 3D."""

import copy
import json
import pydoc
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from tests.networks.plans import TINY_PATCH, tiny
from umamba_seg.mixers import MIXERS
from umamba_seg.networks import NETWORKS

NAMES = json.loads((Path(__file__).parent / "parameter_names.json").read_text())
KINDS = [(name, dims) for name, record in NETWORKS.items() for dims in record.dims]
WITH_MIXERS = [(name, dims, mixer) for name, dims in KINDS for mixer in MIXERS]


def build(name, dims, *, deep_supervision=True, **changes):
    torch.manual_seed(0)
    network = pydoc.locate(NETWORKS[name].class_path)(2, 3, deep_supervision, **tiny(dims, **changes))
    return network.apply(network.initialize)


def image(dims, batch=1):
    return torch.randn(batch, 2, *TINY_PATCH[dims], generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_parameter_names_never_change(name, dims, mixer):
    assert list(build(name, dims, mixer=mixer).state_dict()) == NAMES[f"{name} {dims}d {mixer}"]


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_plans_build_networks_that_load_each_others_weights(name, dims, mixer):
    kwargs = tiny(dims, mixer=mixer, mixer_options={"states": 4})
    before = copy.deepcopy(kwargs)
    classes = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    trained = get_network_from_plans(NETWORKS[name].class_path, kwargs, classes, 2, 3, deep_supervision=True)
    predicting = get_network_from_plans(NETWORKS[name].class_path, kwargs, classes, 2, 3, deep_supervision=False)

    predicting.load_state_dict(trained.state_dict())

    x = image(dims)
    assert kwargs == before
    torch.testing.assert_close(predicting(x), trained(x)[0])
    trained.decoder.deep_supervision = False
    torch.testing.assert_close(predicting(x), trained(x))


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_twin_is_the_network_without_its_slots(name, dims):
    network, twin = build(name, dims).state_dict(), build(name, dims, mixer="none").state_dict()
    slots = [name for name in network if "mamba_layer" in name]

    assert slots
    assert list(twin) == [name for name in network if name not in slots]


@pytest.mark.parametrize("dims", [2, 3])
def test_bot_and_enc_have_the_same_twin(dims):
    bot, enc = (build(name, dims, mixer="none") for name in ("umamba_bot", "umamba_enc"))
    x = image(dims)

    torch.testing.assert_close(bot(x), enc(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "dims", "mixer"), WITH_MIXERS)
def test_network_is_built_without_memory(name, dims, mixer):
    with torch.device("meta"):
        network = build(name, dims, mixer=mixer)

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

import copy

import pytest
import torch

from tests.networks.single_resolution import INPUT_CHANNELS, NUM_CLASSES, build, image
from umamba_seg.errors import ModelError
from umamba_seg.networks import create
from umamba_seg.networks.segmamba_weights import read_segmamba_weights

WRAPPERS = {
    "bare": dict,
    "of DDP": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "under an entry": lambda weights: {"module": weights, "epoch": 3},
    "of DDP under an entry": lambda weights: {"module": {f"module.{name}": value for name, value in weights.items()}},
}
# four stages, for the slices of the authors; wider than deep, so that no two numbers agree by chance
FULL = {"depths": [1, 2, 1, 1], "features": [8, 16, 24, 32], "hidden": 40}


def rebuilt(state_dict, **changes):
    name, arch_kwargs, weights = read_segmamba_weights(state_dict)
    network = create(name, INPUT_CHANNELS, NUM_CLASSES, **{**arch_kwargs, **changes})
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("directions", [1, 2, 3])
def test_every_generation_of_v1_is_read_from_every_form(directions, wrapper):
    network = build("segmamba", directions=directions, slices=[64, 32, 16, 8], **FULL)
    x = image(size=[32, 32, 32])

    loaded = rebuilt(WRAPPERS[wrapper](network.state_dict()))

    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)


def test_arguments_are_those_of_the_network():
    weights = build("segmamba", strides=[1, [1, 2, 2], 2, 2, 2], **FULL).state_dict()

    name, arch_kwargs, _ = read_segmamba_weights(weights)

    assert name == "segmamba"
    assert arch_kwargs == {
        **FULL,
        "dims": 3,
        "strides": [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 3],
        "directions": 3,
        "slices": [64, 32, 16, 8],
        "mixer": "segmamba",
    }


def test_who_knows_that_layers_did_not_add_can_say_so():
    network = build("segmamba", directions=1, layer_residual=False, **FULL)
    x = image(size=[32, 32, 32])

    torch.testing.assert_close(rebuilt(network.state_dict(), layer_residual=False)(x), network(x))
    assert not torch.allclose(rebuilt(network.state_dict())(x), network(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_v2_is_read(dims):
    network = build("segmamba_v2", dims)
    x = image(dims)

    loaded = rebuilt({f"module.{name}": value for name, value in network.state_dict().items()})

    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)


def test_weights_are_not_changed():
    weights = WRAPPERS["of DDP under an entry"](build("segmamba").state_dict())
    before = copy.deepcopy(weights)

    read_segmamba_weights(weights)

    assert list(weights["module"]) == list(before["module"])


@pytest.mark.parametrize("weights", [{}, {"epoch": torch.ones(1)}, build("lightm_unet").state_dict()], ids=len)
def test_other_weights_are_refused(weights):
    with pytest.raises(ModelError, match=r"no weights of SegMamba: they lack vit.downsample_layers.0.0.weight"):
        read_segmamba_weights(weights)


def test_a_missing_weight_is_named():
    weights = build("segmamba").state_dict()
    del weights["decoder2.transp_conv.conv.weight"]

    with pytest.raises(ModelError, match=r"not complete: they lack decoder2.transp_conv.conv.weight"):
        read_segmamba_weights(weights)

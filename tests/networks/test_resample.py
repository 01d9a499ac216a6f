"""Weights of channel-wise slots at another patch size."""

import pytest
import torch
from torch.nn import functional as F

from tests.networks.plans import arch_kwargs
from umamba_seg.errors import ModelError, UsageError
from umamba_seg.mixers import create as create_mixer
from umamba_seg.networks import create, resample_weights
from umamba_seg.networks.resample import (
    INNER_ROWS,
    _inner_values,
    _with_fewer_inner_channels,
    _with_more_inner_channels,
    _with_rank,
)

SLOT = "encoder.mamba_layers.3."
CHANNELS = 64
# How much of the layer's output may be lost, in the 2-norm. Growing costs what interpolation costs: 0.04 to 0.11 here.
# Shrinking costs more where all inner channels matter alike, as they do at the start of training: 0.19 and 0.24.
GROWN, SHRUNK = 0.15, 0.3


def build(patch_size, seed=0, name="umamba_enc", **changes):
    """Four stages, of which the deepest has an eighth of the patch along each axis, in 3D at most 4·4·4 voxels."""
    torch.manual_seed(seed)
    dims = len(patch_size)
    kwargs = arch_kwargs([[1] * dims, *[[2] * dims] * 3], base=8, limit=CHANNELS, patch_size=list(patch_size))
    network = create(name, 1, 2, **{**kwargs, **changes})
    with torch.no_grad():  # away from equal rows and ones, which hide errors
        for parameter in network.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    return network


def resampled(old, patch_size):
    new = build(patch_size, seed=1)
    new.load_state_dict(resample_weights(old.state_dict(), old, new))
    return new


def smooth_map(patch_size):
    """The same linear functions in every direction, at the voxels of the deepest map."""
    generator = torch.Generator().manual_seed(2)
    slopes = torch.randn(CHANNELS, len(patch_size), generator=generator)
    axes = [(torch.arange(n // 8) + 0.5) / (n // 8) for n in patch_size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (axes, *s)
    return torch.einsum("ca,a...->c...", slopes, places).unsqueeze(0)


def brought_to(y, patch_size):
    mode = {2: "bilinear", 3: "trilinear"}[len(patch_size)]
    return F.interpolate(y, size=[n // 8 for n in patch_size], mode=mode)


def loss_of_function(old, old_patch, new, new_patch):
    """What the layers do to one smooth map, seen on the two grids."""
    with torch.no_grad():
        expected = brought_to(old.encoder.mamba_layers["3"](smooth_map(old_patch)), new_patch)
        actual = new.encoder.mamba_layers["3"](smooth_map(new_patch))
    return ((actual - expected).norm() / expected.norm()).item()


CHANGES = [
    ((32, 32, 24), (32, 32, 32), GROWN),
    ((16, 24, 24), (32, 32, 32), GROWN),
    ((32, 40), (48, 56), GROWN),
    ((64, 64), (56, 64), SHRUNK),
    ((32, 32, 32), (32, 32, 24), SHRUNK),
]


@pytest.mark.parametrize(("old_patch", "new_patch", "allowed"), CHANGES)
def test_the_layer_does_about_the_same_to_smooth_maps(old_patch, new_patch, allowed):
    old = build(old_patch)
    new = resampled(old, new_patch)

    assert loss_of_function(old, old_patch, new, new_patch) < allowed
    assert loss_of_function(old, old_patch, build(new_patch, seed=1), new_patch) > 0.9  # chance does not do it


@pytest.mark.parametrize(("old_patch", "new_patch"), [change[:2] for change in CHANGES])
def test_the_network_runs_and_trains_at_the_new_size(old_patch, new_patch):
    new = resampled(build(old_patch), new_patch)
    x = torch.randn(1, 1, *new_patch)

    y = new(x)
    y.square().mean().backward()

    assert new.only_size == new_patch
    assert y.shape[2:] == new_patch
    gradients = {name: value.grad for name, value in new.named_parameters() if name.startswith(SLOT)}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert gradients[f"{SLOT}mamba.out_proj.weight"].abs().amin(dim=0).min() > 0  # new channels learn to be heard


@pytest.mark.parametrize("patch_size", [(32, 32, 24), (32, 40)])
def test_at_the_same_size_nothing_changes(patch_size):
    old = build(patch_size)

    new = resampled(old, patch_size)

    x = torch.randn(1, 1, *patch_size)
    torch.testing.assert_close(new(x), old(x), rtol=0, atol=0)


def test_the_same_number_of_voxels_on_another_grid_is_another_size():
    old = build((16, 64))

    new = resampled(old, (64, 16))

    name = f"{SLOT}norm.weight"
    assert old.state_dict()[name].shape == new.state_dict()[name].shape
    assert not torch.equal(old.state_dict()[name], new.state_dict()[name])


def test_growing_within_the_same_grid_is_exact():
    """A layer with more inner channels and a higher rank of delta, none of them read, is the same function."""
    torch.manual_seed(0)
    old, new = create_mixer("mamba", 20, spatial_dims=1), create_mixer("mamba", 20, spatial_dims=1, expand=3)
    start = create_mixer("mamba", 60, spatial_dims=1).state_dict()  # of rank 4 instead of 2
    new.rank, new.x_proj, new.dt_proj = 4, torch.nn.Linear(60, 36, bias=False), torch.nn.Linear(4, 60)
    weights = _with_rank(dict(old.state_dict()), start)
    start = {name: value[:60] for name, value in start.items()}
    start["in_proj.weight"] = torch.randn(120, 20)
    start["dt_proj.weight"] = torch.randn(60, 4)

    new.load_state_dict(_with_more_inner_channels(weights, start))

    x = torch.randn(1, 30, 20)
    torch.testing.assert_close(new(x), old(x))


def test_of_too_high_a_rank_of_delta_the_largest_parts_stay():
    torch.manual_seed(0)
    columns, rows = torch.randn(12, 2), torch.randn(2, 12)  # what a layer of rank 4 computes has rank 2 only
    spread, states = torch.randn(2, 4), torch.randn(6, 12)
    weights = {
        "x_proj.weight": torch.cat((torch.linalg.pinv(spread) @ rows, states)),
        "dt_proj.weight": columns @ spread,
    }

    result = _with_rank(weights, {"dt_proj.weight": torch.empty(12, 2)})

    assert result["dt_proj.weight"].shape == (12, 2)
    torch.testing.assert_close(result["dt_proj.weight"] @ result["x_proj.weight"][:2], columns @ rows)
    torch.testing.assert_close(result["x_proj.weight"][2:], states)


def test_inner_values_are_those_of_the_layer():
    torch.manual_seed(0)
    mixer, x = create_mixer("mamba", 20, spatial_dims=1), torch.randn(2, 30, 20)
    read = {}
    for name in ("x_proj", "out_proj"):
        layer = mixer.get_submodule(name)
        layer.register_forward_pre_hook(lambda layer, args, name=name: read.update({name: args[0].flatten(0, 1)}))
    mixer(x)

    u, y = _inner_values({name: value.double() for name, value in mixer.state_dict().items()}, x.double())

    torch.testing.assert_close(u.float(), read["x_proj"])
    torch.testing.assert_close(y.float(), read["out_proj"])


def test_inner_channels_that_say_the_same_are_dropped_without_loss():
    """Half of the inner channels repeat the others at another volume, so that half of them tell everything."""
    torch.manual_seed(0)
    small = create_mixer("mamba", 20, spatial_dims=1, expand=2)
    weights, volume = small.state_dict(), torch.rand(40) + 0.5
    double = {name: torch.cat((value, value)) for name, value in weights.items() if name in INNER_ROWS}
    double["in_proj.weight"] = weights["in_proj.weight"].unflatten(0, (2, 40)).repeat(1, 2, 1).flatten(0, 1)
    double["x_proj.weight"] = torch.cat((weights["x_proj.weight"], 0.3 * weights["x_proj.weight"]), dim=1)
    double["out_proj.weight"] = torch.cat((weights["out_proj.weight"], volume * weights["out_proj.weight"]), dim=1)
    full = create_mixer("mamba", 20, spatial_dims=1, expand=4)
    full.load_state_dict(double)

    result = _with_fewer_inner_channels(double, torch.randn(8, 64, 20), 40)

    small.load_state_dict(result)
    x = torch.randn(1, 30, 20)
    torch.testing.assert_close(small(x), full(x), rtol=1e-4, atol=1e-4)


def test_all_other_weights_stay_and_none_is_changed_in_place():
    old, new = build((32, 32, 24)), build((32, 32, 32), seed=1)
    weights = {name: value.clone() for name, value in old.state_dict().items()}

    result = resample_weights(weights, old, new)

    assert list(result) == list(new.state_dict())
    for name, value in old.state_dict().items():
        assert torch.equal(weights[name], value)
        assert torch.equal(result[name], value) != name.startswith(SLOT) or result[name].shape != value.shape


def test_weights_keep_their_dtype():
    old, new = build((32, 40)), build((48, 56))
    weights = {name: value.half() for name, value in old.state_dict().items()}

    assert {value.dtype for value in resample_weights(weights, old, new).values()} == {torch.float16}


@pytest.mark.parametrize("changes", [{"name": "umamba_bot"}, {"mixer": "none"}, {"channel_tokens": False}])
def test_networks_that_fit_any_size_keep_their_weights(changes):
    old, new = build((32, 40), **changes), build((48, 56), **changes)

    assert all(
        value is old.state_dict()[name] or torch.equal(value, old.state_dict()[name])
        for name, value in resample_weights(old.state_dict(), old, new).items()
    )


def test_a_stage_that_becomes_too_large_for_its_channels_is_named():
    old, new = build((32, 40)), build((128, 128))

    with pytest.raises(UsageError, match="stage 3 is mixed over its channels at one of the two") as caught:
        resample_weights(old.state_dict(), old, new)
    assert "channel_tokens=False" in caught.value.how[1]


def test_networks_that_differ_in_more_are_refused():
    old, new = build((32, 40)), build((48, 56), features_per_stage=[8, 16, 32, 48])

    with pytest.raises(UsageError, match="may differ in their patch size alone"):
        resample_weights(old.state_dict(), old, new)


def test_weights_of_another_network_are_refused():
    old, new = build((32, 40)), build((48, 56))
    weights = {name: value for name, value in old.state_dict().items() if name != f"{SLOT}mamba.D"}

    with pytest.raises(ModelError, match=f"lack {SLOT}mamba.D"):
        resample_weights(weights, old, new)

"""What every registered mixer does, whatever it computes."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.mixers.comparing import make_map, make_mixer
from umamba_seg.mixers import MIXERS, create

NAMES = json.loads((Path(__file__).parent / "parameter_names.json").read_text())
KINDS = [name for name in MIXERS if name != "none"]
# forms of a mixer that keep other numbers for the backward pass than its plain one
FORMS = [
    *((name, {}) for name in KINDS),
    ("mamba", {"states": 4, "expand": 1}),
    ("segmamba", {"directions": 2}),
    ("segmamba", {"slices": 4}),
    ("bidirectional", {"shared": True}),
    ("axes", {"tie": "none"}),
    ("axes", {"tie": "all", "expand": 2, "states": 16}),
    ("axes", {"mode": "cascade"}),
    ("axes", {"group": True}),
    ("axes", {"scale": 2}),
    ("axes", {"bc_norm": False}),
    ("axes", {"mm": "absolute", "spacing": (2.0, 1.0, 1.0)}),
    ("routes", {"routes": "segmamba"}),
    ("gated_conv", {"match": "parameters"}),
    ("large_kernel", {"width": 5, "expand": 2}),
    ("conv", {"parameters": 20_000}),
]
every_mixer = pytest.mark.parametrize("name", KINDS)


@every_mixer
@pytest.mark.parametrize("size", [(3, 5), (4, 1), (2, 3, 4), (1, 3, 5), (3, 1, 1), (2, 1, 3), (7,)], ids=str)
def test_any_size_gives_a_map_of_its_shape_and_finite_gradients(name, size):
    mixer, x = make_mixer(name, 8, len(size)), make_map(2, *size, 8).requires_grad_()

    y = mixer(x)
    y.square().mean().backward()

    assert y.shape == x.shape
    assert y.isfinite().all()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in [x, *mixer.parameters()])


@every_mixer
@pytest.mark.parametrize("size", [(1, 1), (1, 1, 1)], ids=str)
def test_a_map_of_one_voxel_is_a_map(name, size):
    mixer, x = make_mixer(name, 8, len(size)), make_map(2, *size, 8).requires_grad_()

    y = mixer(x)
    y.sum().backward()

    assert y.shape == x.shape
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@every_mixer
@pytest.mark.parametrize("size", [(3, 5), (2, 3, 4)], ids=str)
def test_any_strides_give_the_same_result(name, size):
    mixer, x = make_mixer(name, 8, len(size)), make_map(2, *size, 8)
    channels_first = x.movedim(-1, 1).contiguous().movedim(1, -1)
    every_other = torch.zeros(2, *(2 * n for n in size), 8)[(slice(None), *[slice(None, None, 2)] * len(size))]
    every_other.copy_(x)

    for strided in (channels_first, every_other):
        torch.testing.assert_close(mixer(strided), mixer(x))


@every_mixer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_values_stay_finite_under_autocast(name, dtype):
    # torch 2.13 gives a dense bfloat16 convolution of 2×4×5 voxels NaN for a gradient now and then, by itself too
    mixer, x = make_mixer(name, 16, 3), 1e3 * make_map(1, 3, 4, 5, 16)
    x.requires_grad_()

    with torch.autocast("cpu", dtype=dtype):
        y = mixer(x)
    y.mean().backward()

    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert all(value.grad.isfinite().all() for value in [x, *mixer.parameters()])
    error = (y - mixer(x)).square().mean().sqrt() / y.square().mean().sqrt()
    assert error < (0.01 if dtype == torch.float16 else 0.05)


@every_mixer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_of_the_input(name, dtype):
    mixer, x = make_mixer(name, 8, 2), make_map(2, 3, 4, 8)

    actual = mixer(x.to(dtype))

    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), mixer(x.to(dtype).float()), rtol=2e-2, atol=2e-2)


@every_mixer
def test_a_mixer_of_doubles_computes_in_double(name):
    mixer, x = make_mixer(name, 8, 2).double(), make_map(1, 3, 4, 8).double()

    difference = (mixer(x) - mixer.float()(x.float()).double()).abs().max()

    assert 0 < difference < 1e-4


@every_mixer
def test_a_mixer_of_bfloat16_parameters_runs(name):
    mixer, x = make_mixer(name, 16, 3), make_map(1, 3, 4, 5, 16)
    expected = mixer(x)

    actual = mixer.bfloat16()(x.bfloat16())

    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


@every_mixer
def test_the_same_call_gives_the_same_bits(name):
    mixer = make_mixer(name, 8, 3)

    def run():
        x = make_map(2, 3, 4, 5, 8).requires_grad_()
        y = mixer(x)
        return [y, *torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])]

    assert all(torch.equal(once, again) for once, again in zip(run(), run(), strict=True))


@every_mixer
@pytest.mark.parametrize("dims", [2, 3])
def test_a_mixer_is_built_without_memory(name, dims):
    with torch.device("meta"):
        mixer = create(name, 8, spatial_dims=dims)
        x = torch.empty(1, *[4] * dims, 8)

    assert all(value.is_meta for value in mixer.state_dict().values())
    assert mixer(x).shape == x.shape


@every_mixer
def test_parameter_names_and_shapes_never_change(name):
    found = {key: list(value.shape) for key, value in create(name, 32, spatial_dims=3).state_dict().items()}

    assert found == NAMES[name]
    assert list(found) == list(NAMES[name])


@every_mixer
def test_only_plain_convolutions_get_the_initial_values_of_the_network(name):
    modules = create(name, 8, spatial_dims=3).modules()

    assert any(isinstance(module, (nn.Conv2d, nn.Conv3d)) for module in modules) == (name == "conv")


def measured(mixer, x):
    """Numbers that autograd keeps, those of the parameters aside; memory that two operations share counts once."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in mixer.parameters()}
    kept = {}

    def pack(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in parameters:
            kept[memory.data_ptr()] = memory, memory.nbytes() // tensor.element_size()  # held, lest it be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = mixer(x)
    assert y.requires_grad
    return sum(numbers for _, numbers in kept.values())


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_saved_elements_are_those_that_autograd_keeps_within_three_percent(name, options):
    mixer, x = create(name, 48, spatial_dims=3, **options), make_map(1, 16, 16, 16, 48).requires_grad_()

    assert mixer.saved_elements(16**3) == pytest.approx(measured(mixer, x), rel=0.03)


@pytest.mark.slow
@every_mixer
def test_a_mixer_compiles_in_one_piece(name):
    mixer, x = make_mixer(name, 8, 3), make_map(2, 3, 4, 5, 8)

    torch.testing.assert_close(torch.compile(mixer, fullgraph=True, backend="aot_eager")(x), mixer(x))


@every_mixer
def test_a_mixer_exports_with_any_batch(name):
    mixer = make_mixer(name, 8, 3).eval()
    batch = torch.export.Dim("batch", min=1, max=16)

    exported = torch.export.export(mixer, (make_map(2, 3, 4, 5, 8),), dynamic_shapes=({0: batch},))

    x = make_map(3, 3, 4, 5, 8)
    torch.testing.assert_close(exported.module()(x), mixer(x))

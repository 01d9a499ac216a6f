"""The convolution along a route: output and gradients against a plain sum, what it refuses, what torch does to it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import conv_on, each_backend
from tests.kernels.scan_cases import covering, equal, in_double, single, weights
from tests.kernels.test_scan_graphs import trained
from tests.kernels.volume_cases import TABLES
from tests.oracles.conv import causal_conv as oracle
from umamba_seg.errors import BackendUnavailableError
from umamba_seg.kernels import causal_conv, conv_ops, dispatch
from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.dispatch import Backend
from umamba_seg.kernels.route_arguments import told
from umamba_seg.kernels.torch import blocks, plain_conv

R, T = torch.rand, torch.tensor


@dataclass(frozen=True)
class ConvCase:
    """A volume, a route and what is given to a convolution along it."""

    space: tuple[int, ...]
    route: str
    width: int = 4
    channels: int = 3
    batch: int = 2
    reset: int | tuple[int, ...] | None = None
    centred: bool = False
    activation: str | None = "silu"
    has_bias: bool = True

    def __str__(self) -> str:
        parts = [f"{field.name}={x}" for field in fields(self) if (x := getattr(self, field.name)) != field.default]
        return " ".join(parts)

    def options(self) -> dict[str, Any]:
        voxels = torch.Size(self.space).numel()
        return {
            "route": TABLES[self.route](voxels, self.batch) if self.route in TABLES else self.route,
            "reset": T(self.reset) if isinstance(self.reset, tuple) else self.reset,
            "centred": self.centred,
            "activation": self.activation,
        }

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        given = {"u": normal(self.batch, *self.space, self.channels), "weight": normal(self.channels, self.width)}
        return given | ({"bias": normal(self.channels)} if self.has_bias else {})

    def conv(self, dtype: torch.dtype) -> Conv:
        """As a backend gets it."""
        given, options = {name: x.to(dtype) for name, x in self.tensors().items()}, self.options()
        where = {"batch": self.batch, "device": torch.device("cpu"), "dims": len(self.space)}
        route, table, offsets = told([options["route"]], options["reset"], **where)
        has_silu = self.activation == "silu"
        return Conv(given["u"], given["weight"], given.get("bias"), table, offsets, route, self.centred, has_silu)


def outcome(conv: Callable[..., Tensor], tensors: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """y and every gradient, by name."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    y = conv(**leaves, **options)
    grads = torch.autograd.grad(y, list(leaves.values()), weights(y), materialize_grads=True)
    return {"y": y.detach(), **dict(zip((f"d{name}" for name in leaves), grads, strict=True))}


WALKS = [
    ((11,), "+x"), ((11,), "-x"), ((3, 4), "yx"), ((3, 4), "-y-x"), ((3, 4), "x-y"), ((3, 4), "+y"), ((3, 4), "-x"),
    ((2, 3, 2), "-x-zy"), ((2, 3, 4), "+z"), ((1, 3, 2), "zyx"), ((3, 4), "padded"), ((3, 4), "samples"),
    ((5,), "short"),
]  # fmt: skip
CASES = [
    ConvCase(*options.pop("walk"), **options)
    for options in covering(
        walk=tuple(WALKS),
        width=(1, 2, 3, 4, 7),
        reset=(None, 1, 3),
        centred=(False, True),
        activation=("silu", None),
        has_bias=(True, False),
        batch=(2, 1, 0),
        keep=lambda walk, batch, **_: batch > 0 or walk[1] != "samples",
    )
] + [
    ConvCase((12,), "-x", reset=(0, 1, 1, 5, 12)),
    ConvCase((3, 4), "shuffled", reset=(0, 2, 11), width=3, centred=True),
    ConvCase((3, 4), "samples", reset=(0, 5, 6, 16), width=3),
    ConvCase((1300,), "-x", width=3, batch=1),
    ConvCase((3, 700), "samples", width=5, centred=True),
    ConvCase((9,), "-x", channels=70, width=3),
    ConvCase((0, 3), "yx"),
]


@each_backend
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_convolution_along_any_route_is_the_oracle(backend, case):
    conv, tensors = conv_on(backend), case.tensors()

    assert_within(outcome(conv, single(case), **case.options()), outcome(oracle, tensors, **case.options()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_small_blocks_change_nothing(monkeypatch, case):
    expected = outcome(oracle, case.tensors(), **case.options())
    monkeypatch.setattr(blocks, "CPU_BLOCK", 2**4)

    assert_within(outcome(conv_on("torch"), single(case), **case.options()), expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.batch and all(case.space)], ids=str)
def test_the_slow_version_is_the_oracle_too(monkeypatch, case):
    expected = outcome(oracle, case.tensors(), **case.options())
    monkeypatch.setattr(conv_ops, "conv_forward", lambda *fields: plain_conv.causal_conv(Conv(*fields[:-1])))

    assert_within(outcome(causal_conv, case.tensors(), **case.options()), expected)


@each_backend
def test_along_memory_it_is_the_causal_convolution_of_torch(backend):
    conv, case = conv_on(backend), ConvCase((20,), "+x", channels=5)
    given = single(case)
    padded = F.pad(given["u"].mT, (3, 0))
    expected = F.silu(F.conv1d(padded.double(), given["weight"][:, None].double(), given["bias"].double(), groups=5)).mT

    assert_within({"y": conv(**given, route="+x")}, {"y": expected})


def test_the_oracle_gives_what_is_worked_out_by_hand():
    u, weight = T([1.0, 2.0, 4.0, 8.0]).double().view(1, 2, 2, 1), T([[1.0, 10.0, 100.0]]).double()

    def convolved(route: str | Tensor, **options: Any) -> Any:
        return oracle(u, weight, route=route, activation=None, **options).squeeze(-1).squeeze(0).tolist()

    assert convolved("yx") == [[100, 210], [421, 842]]
    assert convolved("-y-x") == [[124, 248], [480, 800]]
    assert convolved("yx", centred=True) == [[210, 421], [842, 84]]
    assert convolved("+y") == [[100, 200], [410, 820]]
    assert convolved("yx", reset=3) == [[100, 210], [421, 800]]
    assert convolved(T([3, -1, 0])) == [[180, 0], [0, 800]]
    assert oracle(u, weight, bias=T([-110.0]).double(), route="yx")[0, 0, 0].item() == pytest.approx(
        -10 / (1 + 22026.47)
    )


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_tensors_are_convolved_in_float32(backend, dtype):
    conv, case = conv_on(backend), ConvCase((3, 5), "-xy", channels=8)
    tensors = {name: x.to(dtype) for name, x in case.tensors().items()}
    expected = outcome(oracle, in_double(tensors), **case.options())

    actual = outcome(conv, tensors, **case.options())

    assert all(x.dtype == dtype for x in actual.values())
    assert_within(actual, expected)


@each_backend
def test_16_bit_activations_meet_float32_weights(backend):
    conv, case = conv_on(backend), ConvCase((3, 5), "-x", channels=8)
    tensors = single(case) | {"u": case.tensors()["u"].half()}
    expected = outcome(oracle, in_double(tensors), **case.options())

    actual = outcome(conv, tensors, **case.options())

    assert (actual["y"].dtype, actual["dweight"].dtype) == (torch.float16, torch.float32)
    assert_within(actual, expected)


@each_backend
def test_float64_stays_float64(backend):
    conv, case = conv_on(backend, torch.float64), ConvCase((3, 5), "padded")

    actual = outcome(conv, case.tensors(), **case.options())

    assert_within(actual, outcome(oracle, case.tensors(), **case.options()))


@each_backend
@pytest.mark.parametrize("is_per_sample", [False, True])
def test_voxels_that_no_token_names_are_not_read_and_get_nothing(backend, is_per_sample):
    conv, case = conv_on(backend), ConvCase((2, 3), "yx")
    table = T([-1, 4, -1, -1, 2, 5, 3, -1])
    options = case.options() | {"route": torch.stack([table, table.roll(1)]) if is_per_sample else table}
    tensors = single(case)
    expected = outcome(conv, tensors, **options)
    tensors["u"][:, 0, :2] = torch.nan

    actual = outcome(conv, tensors, **options)

    assert equal(actual, expected)
    assert not actual["y"][:, 0, :2].any()
    assert not actual["du"][:, 0, :2].any()


@each_backend
def test_channels_first_memory_is_no_obstacle_and_gradients_lie_like_it(backend):
    conv, case = conv_on(backend), ConvCase((2, 3, 2), "-xzy")
    expected, tensors = in_double(outcome(conv, single(case), **case.options())), single(case)
    tensors["u"] = tensors["u"].movedim(-1, 1).contiguous().movedim(1, -1)

    actual = outcome(conv, tensors, **case.options())

    assert_within(actual, expected)
    assert actual["y"].stride() == actual["du"].stride() == tensors["u"].stride()


REFUSED = [  # for u (2, 3, 4, 5)
    ({"u": R(2, 5)}, "a volume has 1 to 3 spatial axes between batch and channels; u is (2, 5)"),
    ({"u": R(2, 3, 4, 5).int()}, "u must be a real floating-point tensor, got torch.int32"),
    ({"u": R(2, 3, 4, 0)}, "there must be channels and weights; got u (2, 3, 4, 0) and weight (5, 3)"),
    ({"weight": R(5, 0)}, "there must be channels and weights; got u (2, 3, 4, 5) and weight (5, 0)"),
    ({"weight": R(5, 1, 3)}, "weight must have 2 axes, d, w; got shape (5, 1, 3)"),
    ({"weight": R(4, 3)}, "weight must have the shape (d, w), (5, 3); got (4, 3)"),
    ({"weight": torch.empty(5, 3, device="meta")}, "weight must be on the device of u, cpu; got meta"),
    ({"bias": R(4)}, "bias must have the shape (d), (5,); got (4,)"),
    ({"activation": "relu"}, "activation must be one of None, 'silu'; got 'relu'"),
    ({"route": "zyx"}, "a route over 2 axes names each of y, x once"),
    ({"route": T([0, 12])}, "a table names voxels from 0 to 11, or -1; got 0 to 12"),
    ({"route": T([3, 5, 3])}, "a table for a convolution must name no voxel twice"),
    ({"reset": 0}, "reset must be a number of tokens, at least 1; got 0"),
    ({"reset": T([0, 11])}, "must rise from 0 to the number of tokens, 12; got [0, 11]"),
    (
        {"route": "+y", "reset": T([0, 12])},
        "a state starts anew at each line of '+y'; offsets are for rasters and tables",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_does_not_fit_is_refused_with_the_values_in_the_sentence(change, sentence):
    given = {"u": R(2, 3, 4, 5), "weight": R(5, 3), "bias": R(5), "route": "yx"}

    with pytest.raises(ValueError, match=re.escape(sentence)):
        causal_conv(**given | change, backend="torch")


SMALL = [
    ConvCase((2, 3), "-xy", width=3),
    ConvCase((2, 3), "samples", width=2, reset=3, has_bias=False),
    ConvCase((5,), "-x", width=4, centred=True, activation=None, channels=1),
]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_torch_backend_passes_gradcheck_twice(case):
    tensors = {name: x.requires_grad_() for name, x in case.tensors().items()}

    def conv(*values: Tensor) -> Tensor:
        return causal_conv(**dict(zip(tensors, values, strict=True)), **case.options(), backend="torch")

    assert torch.autograd.gradcheck(conv, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(conv, tuple(tensors.values()))


def test_a_backend_without_second_derivatives_says_so(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (Backend("torch", lambda device, dtype: None, operators=("conv",)),))
    u = R(1, 3, 2, requires_grad=True)
    first = torch.autograd.grad(causal_conv(u, R(2, 2), route="+x").sum(), u, create_graph=True)[0]

    with pytest.raises(BackendUnavailableError, match="'torch' has no second derivatives"):
        first.sum().backward()


def test_auto_takes_a_backend_that_convolves_and_a_name_stays_an_order(monkeypatch):
    scanner, both = Backend("scanner", lambda device, dtype: None), dispatch.BACKENDS[-1]
    monkeypatch.setattr(dispatch, "BACKENDS", (scanner, both))

    assert dispatch.choose("auto", torch.device("cpu"), operator="conv") is both
    with pytest.raises(BackendUnavailableError, match="'scanner' cannot run this conv: it has no conv"):
        causal_conv(R(1, 3, 2), R(2, 2), route="+x", backend="scanner")


def test_a_process_that_prefers_a_backend_without_convolution_still_convolves(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", (Backend("scanner", lambda device, dtype: None), dispatch.BACKENDS[-1]))

    with dispatch.use("scanner"):
        assert dispatch.requested("auto", "conv") == "auto"
        assert dispatch.requested("auto") == "scanner"
        assert causal_conv(R(1, 3, 2), R(2, 2), route="+x").shape == (1, 3, 2)


class Layer(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backend, self.project = backend, nn.Linear(3, 4)
        self.weight, self.bias = nn.Parameter(R(4, 3)), nn.Parameter(R(4))

    def forward(self, x: Tensor) -> Tensor:
        return causal_conv(self.project(x), self.weight, self.bias, route="-x", backend=self.backend)


@each_backend
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_operators_keep_torchs_rules(backend, case, monkeypatch):
    conv_on(backend)
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(conv_ops, "conv_forward", lambda *arguments: seen.append(arguments))
    conv_on(backend)(**{name: x.requires_grad_() for name, x in single(case).items()}, **case.options())
    monkeypatch.undo()
    arguments = seen[0]

    torch.library.opcheck(conv_ops.conv_forward, arguments)

    arguments = [
        x.detach() if isinstance(x, Tensor) else x for x in arguments
    ]  # a compiled graph is differentiated once
    torch.library.opcheck(conv_ops.conv_backward, (conv_ops.conv_forward(*arguments), *arguments))


@each_backend
def test_a_compiled_layer_is_one_graph_and_equals_eager_at_any_extents(backend):
    conv_on(backend)
    torch.compiler.reset()
    layer = Layer(backend)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)

    for space in ((5, 7), (3, 4), (8, 6)):
        x = torch.randn(2, *space, 3)
        expected = in_double(trained(layer, layer, x))
        assert_within(trained(compiled, layer, x), expected)


@each_backend
def test_an_exported_layer_takes_any_extents(backend):
    conv_on(backend)
    layer, free = Layer(backend), {i: torch.export.Dim(name) for i, name in enumerate(("batch", "height", "width"))}

    exported = torch.export.export(layer, (R(2, 5, 7, 3),), dynamic_shapes=(free,)).module()

    x = R(3, 9, 8, 3)
    torch.testing.assert_close(exported(x), layer(x))


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing_inside(backend, dtype):
    conv, case = conv_on(backend), ConvCase((3, 4), "-xy")
    expected = outcome(conv, single(case), **case.options())

    with torch.autocast("cpu", dtype=dtype):
        actual = outcome(conv, single(case), **case.options())

    assert equal(actual, expected)

"""A scan inside what torch does to programs: differentiate twice, compile, export, trace, autocast."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, home, is_interpreted, operator_arguments, scan_on
from tests.kernels.scan_cases import Case, outcome
from tests.oracles.scan import selective_scan as oracle
from umamba_seg.errors import BackendUnavailableError
from umamba_seg.kernels import dispatch, ops, selective_scan, use
from umamba_seg.kernels.dispatch import Backend
from umamba_seg.kernels.torch import scan as torch_scan

SMALL = [
    Case(batch=2, length=5, channels=2, states=2),
    Case(1, 6, 4, 2, B=2, C=1, layout="bld", reverse=True, delta_softplus=False, ends=(0, 2, 6), left_out=("z",)),
    Case(1, 4, 2, 2, B=0, C=2, layout="bld", left_out=("D", "z", "delta_bias", "initial_state")),
    Case(1, 4, 2, 2, B=1, C=0, reverse=True, left_out=("D",)),
]


class Layer(nn.Module):
    """A scan between two linear maps, as networks have it."""

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backend = backend
        self.project, self.merge = nn.Linear(6, 4 + 4 + 3 + 3), nn.Linear(4, 6)
        self.A_log = nn.Parameter(torch.rand(4, 3))
        self.to(home(backend))

    def forward(self, x: Tensor) -> Tensor:  # (b, l, 6)
        u, delta, B, C = self.project(x.to(self.A_log.device)).split((4, 4, 3, 3), dim=-1)
        A = -self.A_log.exp()
        return self.merge(selective_scan(u, delta, A, B, C, delta_softplus=True, layout="bld", backend=self.backend))


def tokens(length: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(length))


def trained(forward: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of all parameters."""
    y, parameters = forward(x), dict(layer.named_parameters())
    grads = torch.autograd.grad(y.square().sum(), list(parameters.values()))
    return {"y": y.detach(), **dict(zip(parameters, grads, strict=True))}


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_torch_backend_passes_gradcheck_twice(case):
    tensors = {name: x.requires_grad_() for name, x in case.tensors().items()}

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(tensors, values, strict=True))
        return selective_scan(**named, **case.options(), return_last_state=True, backend="torch")

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(scan, tuple(tensors.values()))


def test_second_and_third_derivatives_keep_inputs_apart_that_hang_together():
    case = Case(1, 7, 2, 3)
    tensors = case.tensors()

    def derivatives(scan) -> list[Tensor]:
        x = tensors["u"].clone().requires_grad_()
        y, _ = scan(**tensors | {"u": x.tanh(), "delta": x * x - 2, "z": x.tanh()}, **case.options())
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), x, create_graph=True)[0]
        return [first, second, torch.autograd.grad(second.square().sum(), x)[0]]

    actual = derivatives(lambda **given: selective_scan(**given, return_last_state=True, backend="torch"))

    for got, expected in zip(actual, derivatives(oracle), strict=True):
        torch.testing.assert_close(got, expected)


def test_a_backend_without_second_derivatives_says_so(monkeypatch):
    once = Backend("torch", lambda device, dtype: None)
    monkeypatch.setattr(dispatch, "BACKENDS", (once,))
    tensors = {name: x.requires_grad_() for name, x in Case(1, 4, 2, 2).tensors().items()}
    first = torch.autograd.grad(selective_scan(**tensors).sum(), tensors["u"], create_graph=True)[0]

    with pytest.raises(BackendUnavailableError, match="'torch' has no second derivatives"):
        first.sum().backward()


@each_backend
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_operators_keep_torchs_rules(backend, case, monkeypatch):
    scan = scan_on(backend, case)
    given = {name: x.float().requires_grad_() for name, x in case.tensors().items()} | case.options()
    arguments = operator_arguments(monkeypatch, scan, **given)
    arguments = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in arguments]

    torch.library.opcheck(ops.scan_forward, arguments)

    arguments = [
        x.detach() if isinstance(x, Tensor) else x for x in arguments
    ]  # a compiled graph is differentiated once
    y, last, checkpoints = ops.scan_forward(*arguments)
    for grads in [(y, last), (y, None), (None, last)]:
        torch.library.opcheck(ops.scan_backward, (*grads, checkpoints, *arguments))


@each_backend
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_layer_is_one_graph_and_equals_eager_at_any_length(backend, compiler, monkeypatch, tmp_path):
    scan_on(backend)
    torch.compiler.reset()
    layer = Layer(backend)
    # inductor's usual cache knows the operator by name only, and could bring back a graph of another version of it
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled = torch.compile(layer, backend=compiler, fullgraph=True, dynamic=True)

    for length in (37, 64, 65 if is_interpreted(backend) else 1100):
        expected = {name: x.double() for name, x in trained(layer, layer, tokens(length)).items()}
        assert_within(trained(compiled, layer, tokens(length)), expected)


@each_backend
def test_use_reaches_a_compiled_scan(backend, monkeypatch):
    """It would not, if the choice were frozen into the graph."""
    scan_on(backend)
    torch.compiler.reset()
    compiled, x = torch.compile(Layer().to(home(backend)), backend="eager", fullgraph=True), tokens(5)
    asked = []
    monkeypatch.setattr(ops, "choose", lambda name, *of: (asked.append(name), dispatch.choose(name, *of))[1])

    compiled(x)
    with use(backend):
        compiled(x)

    assert {"auto", backend} <= set(asked)
    assert asked[-1] == backend


@each_backend
def test_an_exported_layer_takes_any_batch_and_length(backend):
    scan_on(backend)
    layer, free = Layer(backend), {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}

    exported, file = torch.export.export(layer, (tokens(37),), dynamic_shapes=(free,)), io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()

    assert sum(node.target is torch.ops.umamba_seg.scan.default for node in exported.graph.nodes) == 1
    for x in (tokens(65 if is_interpreted(backend) else 1100, batch=3), tokens(5)):
        torch.testing.assert_close(loaded(x), layer(x))


@each_backend
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_traced_layer_takes_any_length(backend):
    scan_on(backend)
    layer = Layer(backend)

    traced, x = torch.jit.trace(layer, (tokens(37),)), tokens(65 if is_interpreted(backend) else 1100)

    torch.testing.assert_close(traced(x), layer(x))


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing_inside(backend, dtype):
    case = Case(2, 65, 4, 3)
    scan = scan_on(backend, case)
    tensors = {name: x.float() for name, x in case.tensors().items()}
    expected = outcome(scan, tensors, **case.options())

    with torch.autocast(home(backend).type, dtype=dtype):
        actual = outcome(scan, tensors, **case.options())

    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_backend_runs_with_autocast_off(monkeypatch, direction):
    seen, run = [], getattr(torch_scan, direction)

    def spy(*arguments: object) -> object:
        seen.append(torch.is_autocast_enabled("cpu"))
        return run(*arguments)

    monkeypatch.setattr(torch_scan, direction, spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained(layer := Layer("torch"), layer, tokens(5))

    assert seen == [False]


@each_backend
def test_checkpointing_computes_the_same_gradients(backend):
    scan_on(backend)
    layer = Layer(backend)

    def again(x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)

    actual, expected = trained(again, layer, tokens(50)), trained(layer, layer, tokens(50))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_backend
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_is_one_call_for_each_item(backend):
    case = Case(batch=1, length=9, channels=4, states=3, left_out=("initial_state",))
    scan = scan_on(backend, case)
    tensors = {name: x.float() for name, x in case.tensors().items()}
    several = torch.stack([tensors["u"], 2 * tensors["u"], -tensors["u"]])

    def on(u: Tensor) -> Tensor:
        return scan(**tensors | {"u": u}, **case.options())[0]

    together = torch.vmap(on)(several)

    torch.testing.assert_close(together, torch.stack([on(u) for u in several]), rtol=0, atol=0)

"""A volume's scan inside what torch does to programs: differentiate twice, compile, export, trace, checkpoint."""

import io
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, home, operator_arguments, skip_unless_runs, volume_scan_on
from tests.kernels.scan_cases import outcome
from tests.kernels.test_scan_graphs import trained
from tests.kernels.test_volume_values import OPTIONS
from tests.kernels.volume_cases import VolumeCase
from tests.oracles.volume import scan_volume as oracle
from umamba_seg.kernels import ops, scan_volume
from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch import plain

SMALL = [
    VolumeCase((2, 2), ("yx", "-x"), channels=2, weights="kb", own=("delta", "B"), exact_gain=True, exclusive="own"),
    VolumeCase((2, 2), ("samples", "-y"), channels=2, merge="concat", exclusive="shift", decay_scale=(0.5, 2.0)),
    VolumeCase((4,), ("repeats",), batch=1, channels=1, reset=3, delta_softplus=False, left_out=("z", "D")),
    VolumeCase((1, 2, 2), ("-xzy", "+z", "short"), batch=1, channels=1, merge="mean", own=("u", "A"), left_out=("z",)),
]


class Layer(nn.Module):
    """A scan of a volume between two linear maps, as networks have it."""

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backend = backend
        self.project, self.merge = nn.Linear(6, 4 + 4 + 3 + 3), nn.Linear(4, 6)
        self.A_log, self.weights = nn.Parameter(torch.rand(3, 4, 3)), nn.Parameter(torch.rand(3))
        self.to(home(backend))

    def forward(self, x: Tensor) -> Tensor:  # (b, y, x, 6)
        u, delta, B, C = self.project(x.to(self.A_log.device)).split((4, 4, 3, 3), dim=-1)
        y = scan_volume(
            u, delta, -self.A_log.exp(), B, C, routes=["+y", "-x", "-yx"], delta_softplus=True,
            weights=self.weights, decay_scale=[1.0, 0.5, 0.5], backend=self.backend,
        )  # fmt: skip
        return self.merge(y)


def volume(*space: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, *space, 6, generator=torch.Generator().manual_seed(space[0]))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_torch_backend_passes_gradcheck_twice(case):
    tensors = {name: x.requires_grad_() for name, x in case.tensors().items()}
    options = case.options() | {"spatial_dims": len(case.space), "return_last_state": True, "backend": "torch"}

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        return scan_volume(**dict(zip(tensors, values, strict=True)), **options)

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(scan, tuple(tensors.values()), fast_mode=True)


def test_second_derivatives_by_a_decay_of_zero_are_right():
    """There the exact gain is a quotient of zeros."""
    case = VolumeCase((4,), ("-x",), batch=1, channels=1, states=3, exact_gain=True, left_out=("z", "initial_state"))
    tensors = {name: x.requires_grad_() for name, x in case.tensors().items()}
    with torch.no_grad():
        tensors["A"].copy_(torch.tensor([[0.0, 1e-9, -1e-3]]))

    def scan(*values: Tensor) -> Tensor:
        named = dict(zip(tensors, values, strict=True))
        return scan_volume(**named, **case.options(), spatial_dims=1, backend="torch")

    assert torch.autograd.gradgradcheck(scan, tuple(tensors.values()))


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_the_slow_version_is_the_oracle_too(monkeypatch, case):
    expected = outcome(partial(oracle, space=case.space), case.tensors(), **case.options())
    monkeypatch.setattr(ops, "scan_forward", lambda *fields: (*plain.scan_volume(Scan(*fields[:-1])), None))
    scan = partial(scan_volume, return_last_state=True, spatial_dims=len(case.space))

    actual = outcome(scan, case.tensors(), **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_operators_keep_torchs_rules(backend, case, monkeypatch):
    scan = volume_scan_on(backend, case)
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
def test_a_compiled_layer_is_one_graph_and_equals_eager_at_any_extents(backend):
    skip_unless_runs(backend)
    torch.compiler.reset()
    layer = Layer(backend)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)

    for space in ((5, 7), (3, 4), (8, 6)):
        expected = {name: x.double() for name, x in trained(layer, layer, volume(*space)).items()}
        assert_within(trained(compiled, layer, volume(*space)), expected)


@each_backend
def test_an_exported_layer_takes_any_batch_and_extents(backend):
    skip_unless_runs(backend)
    layer, names = Layer(backend), ("batch", "height", "width")
    free = {i: torch.export.Dim(name) for i, name in enumerate(names)}

    exported, file = torch.export.export(layer, (volume(5, 7),), dynamic_shapes=(free,)), io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()

    assert sum(node.target is torch.ops.umamba_seg.scan.default for node in exported.graph.nodes) == 1
    for x in (volume(9, 8, batch=3), volume(2, 3)):
        torch.testing.assert_close(loaded(x), layer(x))


@each_backend
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_traced_layer_takes_any_extents(backend):
    skip_unless_runs(backend)
    layer = Layer(backend)

    traced = torch.jit.trace(layer, (volume(5, 7),))

    torch.testing.assert_close(traced(volume(8, 6)), layer(volume(8, 6)))


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing_inside(backend, dtype):
    case = VolumeCase((3, 4), ("yx", "-x"), weights="k")
    scan, tensors = volume_scan_on(backend, case), {name: x.float() for name, x in case.tensors().items()}
    expected = outcome(scan, tensors, **case.options())

    with torch.autocast(home(backend).type, dtype=dtype):
        actual = outcome(scan, tensors, **case.options())

    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_backend
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_computes_the_same_gradients(backend, use_reentrant):
    skip_unless_runs(backend)
    layer = Layer(backend)

    def again(x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(layer, x.requires_grad_(), use_reentrant=use_reentrant)

    def gradients(forward) -> list[Tensor]:
        layer.zero_grad()
        forward(volume(5, 7)).square().sum().backward()
        return [x.grad for x in layer.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(again), gradients(layer), strict=True))

"""The scan as torch operators, so that torch.compile, torch.export and autograd see one node whatever runs it.

Both operators take the fields of `Scan` in their order. The backend is chosen inside, forward and backward alike.
"""

from typing import Any

import torch
from torch import Tensor

from umamba_seg.errors import BackendUnavailableError
from umamba_seg.kernels.dispatch import choose
from umamba_seg.kernels.problem import DIFFERENTIABLE, Scan
from umamba_seg.kernels.torch import plain

_SCAN = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, Tensor? cu_seqlens, bool delta_softplus, bool reverse, str layout, ScalarType? out_dtype, "
    "bool? deterministic"
)
_TENSORS = 10  # the fields of Scan that are tensors come first


@torch.library.custom_op(
    "umamba_seg::selective_scan",
    mutates_args=(),
    schema=f"({_SCAN}, str backend) -> (Tensor y, Tensor last_state, Tensor checkpoints)",
)
def selective_scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and what a backward pass needs."""
    *fields, backend = arguments
    scan = Scan(*fields)
    with torch.autocast(scan.u.device.type, enabled=False):  # a custom op runs with the caller's autocast on
        return choose(backend, scan.u).load().forward(scan)


@torch.library.custom_op(
    "umamba_seg::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor? grad_y, Tensor? grad_last, Tensor checkpoints, {_SCAN}, str backend) -> Tensor[]",
)
def selective_scan_backward(*arguments: Any) -> list[Tensor]:
    """The gradients of `Scan.differentiable()`, in its order."""
    grad_y, grad_last, checkpoints, *fields, backend = arguments
    scan = Scan(*fields)
    with torch.autocast(scan.u.device.type, enabled=False):
        gradients = choose(backend, scan.u).load().backward(scan, checkpoints, grad_y, grad_last)
    return [gradients[name] for name in scan.differentiable()]


@selective_scan.register_fake
def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, backend = arguments
    scan = Scan(*fields)
    states = scan.u.new_empty((scan.sequences, scan.channels, scan.states), dtype=scan.state_dtype)
    kept = choose(backend, scan.u).load().checkpoint_size(scan)
    return scan.u.new_empty(scan.u.shape, dtype=scan.y_dtype), states, states.new_empty(kept)


@selective_scan_backward.register_fake
def _fake_backward(*arguments: Any) -> list[Tensor]:
    _grad_y, _grad_last, _checkpoints, *fields, _backend = arguments
    scan = Scan(*fields)
    return [value.new_empty(value.shape) for value in scan.differentiable().values()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS], output[2])
    ctx.options = inputs[_TENSORS:]
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    *tensors, checkpoints = ctx.saved_tensors
    *options, backend = ctx.options
    gradients = selective_scan_backward(grad_y, grad_last, checkpoints, *tensors, *options, backend)
    by_name = dict(zip(Scan(*tensors, *options).differentiable(), gradients, strict=True))
    return *(by_name.get(name) for name in DIFFERENTIABLE), None, *(None for _ in options), None


def _keep_twice(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad_y, grad_last, _, *fields, backend = inputs
    ctx.save_for_backward(grad_y, grad_last, *fields[:_TENSORS])
    ctx.options, ctx.backend = fields[_TENSORS:], backend
    ctx.set_materialize_grads(False)


def _differentiate_twice(ctx: Any, directions: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    grad_y, grad_last, *tensors = ctx.saved_tensors
    scan = Scan(*tensors, *ctx.options)
    backend = choose(ctx.backend, scan.u)
    if not backend.is_twice_differentiable:
        raise BackendUnavailableError(
            f"backend {backend.name!r} has no second derivatives",
            how=['call selective_scan(..., backend="torch")'],
            code="no-second-derivative",
        )
    by_name = plain.second_derivatives(scan, grad_y, grad_last, directions)
    return (
        by_name.get("grad_y"), by_name.get("grad_last"), None,
        *(by_name.get(name) for name in DIFFERENTIABLE), None,
        *(None for _ in ctx.options), None,
    )  # fmt: skip


selective_scan.register_autograd(_differentiate, setup_context=_keep)
selective_scan_backward.register_autograd(_differentiate_twice, setup_context=_keep_twice)

"""The scan as torch operators, so that torch.compile, torch.export and autograd see one node whatever runs it.

Both operators take the fields of `Scan` in their order. The backend is chosen inside, forward and backward alike.
"""

from typing import Any

import torch
from torch import Tensor

from umamba_seg.kernels.dispatch import choose, refuse_second_derivatives
from umamba_seg.kernels.problem import DIFFERENTIABLE, Scan
from umamba_seg.kernels.torch import plain

_SCAN = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? weights, "
    "Tensor? initial_state, Tensor? table, Tensor? offsets, str routes, float[] decay_scale, float y_scale, "
    "bool delta_softplus, bool exact_gain, str exclusive, bool is_stacked, bool keeps_last, bool is_differentiated, "
    "ScalarType? out_dtype, bool? deterministic"
)
_TENSORS = 12  # the fields of Scan that are tensors come first


@torch.library.custom_op(
    "umamba_seg::scan",
    mutates_args=(),
    schema=f"({_SCAN}, str backend) -> (Tensor y, Tensor last_state, Tensor checkpoints)",
)
def scan_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last states, and what a backward pass needs."""
    *fields, backend = arguments
    scan = Scan(*fields)
    scan.check_values()
    with torch.autocast(scan.u.device.type, enabled=False):  # a custom op runs with the caller's autocast on
        return choose(backend, scan.u.device, scan.state_dtype).load().forward(scan)


@torch.library.custom_op(
    "umamba_seg::scan_backward",
    mutates_args=(),
    schema=f"(Tensor? grad_y, Tensor? grad_last, Tensor checkpoints, {_SCAN}, str backend) -> Tensor[]",
)
def scan_backward(*arguments: Any) -> list[Tensor]:
    """The gradients of `Scan.differentiable()`, in its order."""
    grad_y, grad_last, checkpoints, *fields, backend = arguments
    scan = Scan(*fields)
    with torch.autocast(scan.u.device.type, enabled=False):
        run = choose(backend, scan.u.device, scan.state_dtype).load()
        gradients = run.backward(scan, checkpoints, grad_y, grad_last)
    return [gradients[name] for name in scan.differentiable()]


@scan_forward.register_fake
def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, _backend = arguments
    scan = Scan(*fields)
    return scan.new_y(), scan.new_last_state(), scan.new_checkpoints()


@scan_backward.register_fake
def _fake_backward(*arguments: Any) -> list[Tensor]:
    _grad_y, _grad_last, _checkpoints, *fields, _backend = arguments
    return [torch.empty_like(value) for value in Scan(*fields).differentiable().values()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS], output[2])
    ctx.options = inputs[_TENSORS:]
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    *tensors, checkpoints = ctx.saved_tensors
    *options, backend = ctx.options
    gradients = scan_backward(grad_y, grad_last, checkpoints, *tensors, *options, backend)
    by_name = dict(zip(Scan(*tensors, *options).differentiable(), gradients, strict=True))
    return *(by_name.get(name) for name in DIFFERENTIABLE), None, None, *(None for _ in options), None


def _keep_twice(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad_y, grad_last, _, *fields, backend = inputs
    ctx.save_for_backward(grad_y, grad_last, *fields[:_TENSORS])
    ctx.options, ctx.backend = fields[_TENSORS:], backend
    ctx.set_materialize_grads(False)


def _differentiate_twice(ctx: Any, directions: list[Tensor | None]) -> tuple[Any, ...]:
    grad_y, grad_last, *tensors = ctx.saved_tensors
    scan = Scan(*tensors, *ctx.options)
    refuse_second_derivatives(choose(ctx.backend, scan.u.device, scan.state_dtype))
    by_name = plain.second_derivatives(scan, grad_y, grad_last, directions)
    return (
        by_name.get("grad_y"), by_name.get("grad_last"), None,
        *(by_name.get(name) for name in DIFFERENTIABLE), None, None,
        *([] if x == [] else None for x in ctx.options), None,  # torch takes an empty list for one of tensors
    )  # fmt: skip


scan_forward.register_autograd(_differentiate, setup_context=_keep)
scan_backward.register_autograd(_differentiate_twice, setup_context=_keep_twice)

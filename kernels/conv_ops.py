"""The convolution along a route as torch operators; see `ops`, which does the same for the scan.

Both operators take the fields of `Conv` in their order.
"""

from typing import Any

import torch
from torch import Tensor

from umamba_seg.kernels.conv_problem import DIFFERENTIABLE, Conv
from umamba_seg.kernels.dispatch import choose, refuse_second_derivatives
from umamba_seg.kernels.torch import plain_conv

_CONV = (
    "Tensor u, Tensor weight, Tensor? bias, Tensor? table, Tensor? offsets, str route, bool is_centred, bool has_silu"
)
_TENSORS = 5  # the fields of Conv that are tensors come first


@torch.library.custom_op("umamba_seg::causal_conv", mutates_args=(), schema=f"({_CONV}, str backend) -> Tensor")
def conv_forward(*arguments: Any) -> Tensor:
    """y."""
    *fields, backend = arguments
    conv = Conv(*fields)
    conv.check_values()
    with torch.autocast(conv.u.device.type, enabled=False):  # a custom op runs with the caller's autocast on
        return choose(backend, conv.u.device, conv.dtype, "conv").load_conv().forward(conv)


@torch.library.custom_op(
    "umamba_seg::causal_conv_backward", mutates_args=(), schema=f"(Tensor grad, {_CONV}, str backend) -> Tensor[]"
)
def conv_backward(*arguments: Any) -> list[Tensor]:
    """The gradients of `Conv.differentiable()`, in its order."""
    grad, *fields, backend = arguments
    conv = Conv(*fields)
    with torch.autocast(conv.u.device.type, enabled=False):
        gradients = choose(backend, conv.u.device, conv.dtype, "conv").load_conv().backward(conv, grad)
    return [gradients[name] for name in conv.differentiable()]


@conv_forward.register_fake
def _fake(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[0])


@conv_backward.register_fake
def _fake_backward(*arguments: Any) -> list[Tensor]:
    _grad, *fields, _backend = arguments
    return [torch.empty_like(value) for value in Conv(*fields).differentiable().values()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.options = inputs[_TENSORS:]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors, (*options, backend) = ctx.saved_tensors, ctx.options
    gradients = conv_backward(grad, *tensors, *options, backend)
    by_name = dict(zip(Conv(*tensors, *options).differentiable(), gradients, strict=True))
    return *(by_name.get(name) for name in DIFFERENTIABLE), None, None, *(None for _ in options), None


def _keep_twice(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs[: 1 + _TENSORS])
    ctx.options = inputs[1 + _TENSORS :]
    ctx.set_materialize_grads(False)


def _differentiate_twice(ctx: Any, directions: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    (grad, *tensors), (*options, backend) = ctx.saved_tensors, ctx.options
    conv = Conv(*tensors, *options)
    refuse_second_derivatives(choose(backend, conv.u.device, conv.dtype, "conv"))
    by_name = plain_conv.second_derivatives(conv, grad, directions)
    found = (by_name.get(name) for name in ("grad", *DIFFERENTIABLE))
    return *found, None, None, *(None for _ in options), None


conv_forward.register_autograd(_differentiate, setup_context=_keep)
conv_backward.register_autograd(_differentiate_twice, setup_context=_keep_twice)

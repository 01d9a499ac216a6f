"""The depthwise convolution along a route on the CPU; see `convolution`."""

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba import memory, work
from umamba_seg.kernels.numba.frame import LANES, ROW
from umamba_seg.kernels.numba.library import kernel
from umamba_seg.kernels.numba.routes import order_numbers
from umamba_seg.kernels.problem import CHECKPOINT_STEP


def forward(conv: Conv) -> Tensor:
    """y."""
    y = torch.empty_like(conv.u)
    _convolve(conv, y)
    return y


def backward(conv: Conv, grad: Tensor) -> dict[str, Tensor]:
    """The gradients of all tensors of the convolution, by name."""
    inner = torch.empty(conv.u.shape)  # the gradient of what SiLU was given
    sums = _convolve(conv, inner, grad)
    gradients = {name: torch.empty_like(x) for name, x in conv.differentiable().items()}
    gradients["weight"].copy_(sums["weight"])
    if conv.bias is not None:
        gradients["bias"].copy_(sums["bias"])
    # a token gave to those that saw it: the same convolution with the weights in reverse
    seen = replace(conv, u=inner, weight=conv.weight.flip(1), bias=None, has_silu=False)
    _convolve(seen, gradients["u"], before=conv.width - 1 - conv.before)
    return gradients


def _convolve(conv: Conv, result: Tensor, grad: Tensor | None = None, before: int | None = None) -> dict[str, Tensor]:
    """Run the kernel, and give the sums for weight and bias where there is a gradient."""
    order = conv.order()
    u = memory.readable(conv.u[None], conv.space, is_row=False)
    target = memory.Target(result[None], conv.space, 1, False, [order])
    tokens, blocks = u.shape[2], -(-conv.channels // LANES)
    taps = memory.state_rows(conv.weight, 1, conv.width)
    bias = memory.channel_rows(torch.zeros(conv.channels) if conv.bias is None else conv.bias, 1)
    spans = work.runs_of(order.pieces, conv.batch)
    sums: dict[str, Tensor] = {}
    held: list[Tensor] = []
    arrays = {"u": memory.told(u, 0, 1, tokens), "y": target.told(0)}
    if grad is not None:
        sums["weight"] = torch.zeros(len(spans), 1, blocks, conv.width, LANES)
        sums["bias"] = torch.zeros(len(spans), 1, blocks, LANES)
        grad = memory.readable(grad[None], conv.space, is_row=False)
        arrays["grad_y"] = memory.told(grad, 0, 1, tokens)
    numbers = order_numbers(order, held) | {
        "groups": 1, "channels": conv.channels, "blocks": blocks, "states": conv.width,
        "chunks": conv.before if before is None else before,
        "softplus": conv.has_silu, "mode": grad is not None,
        "rates": taps.data_ptr(), "bias": bias.data_ptr(),
    }  # fmt: skip
    if grad is not None:
        numbers |= {"grad_rates": sums["weight"].data_ptr(), "grad_bias": sums["bias"].data_ptr()}
    threads = work.threads_worth(conv.batch * order.length * conv.channels * conv.width)
    of_blocks = work.cut(blocks, min(blocks, -(-threads // max(len(spans), 1))))
    items = [(*span, *part, run) for (run, span), part in product(enumerate(spans), of_blocks)]
    step, most = CHECKPOINT_STEP, max(last - first for first, last in of_blocks)
    scratch = 2 * step * ROW + 8 * step + (8 + ROW) * (step + conv.width + LANES) + most * conv.width * ROW
    work.run(kernel("convolution"), fields.packed(arrays, numbers), items, scratch, threads)
    target.finished()
    if grad is None:
        return {}
    if not spans:
        return {"weight": torch.zeros(conv.weight.shape), "bias": torch.zeros(conv.channels)}
    return {
        "weight": memory.from_state_rows(memory.added(sums["weight"]), conv.channels, conv.width),
        "bias": memory.from_channel_rows(memory.added(sums["bias"]), conv.channels),
    }

"""The depthwise convolution along a route in Triton; see `convolution`. All sums have one order."""

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.triton.convolution import Walk, convolve
from umamba_seg.kernels.triton.parts import array, check_count, put_back, with_all_axes, writable

MOST_CHANNELS = 64  # of a program
TILE = 1024  # numbers that it computes at once
TILES_OF_A_SUM = 8  # tiles whose shares in the gradients of weights it sums up
COMPILED = {"num_warps": 4, "enable_fp_fusion": True}


def forward(conv: Conv) -> Tensor:
    """y."""
    y = torch.empty_like(conv.u)
    _convolve(conv, _walk(conv), y, conv.before)
    return y


def backward(conv: Conv, grad: Tensor) -> dict[str, Tensor]:
    """The gradients of all tensors of the convolution, by name."""
    inner = torch.empty(conv.u.shape, device=conv.u.device)  # the gradient of what SiLU was given
    walk = _walk(conv)
    sums = _convolve(conv, walk, inner, conv.before, grad)
    gradients = {name: torch.empty_like(x) for name, x in conv.differentiable().items()}
    gradients["weight"].copy_(sums[:-1].T)
    if conv.bias is not None:
        gradients["bias"].copy_(sums[-1])
    # a token gave to those that saw it: the same convolution with the weights in reverse
    given = replace(conv, u=inner, weight=conv.weight.flip(1), bias=None, has_silu=False)
    _convolve(given, walk, gradients["u"], conv.width - 1 - conv.before)
    return gradients


def _convolve(conv: Conv, walk: Walk, result: Tensor, before: int, grad: Tensor | None = None) -> Tensor:
    """Run the kernel, and give the sums (w + 1, d) for the weights and the bias where there is a gradient."""
    u = with_all_axes("u", conv.u[None])
    rows = writable(result[None], is_sum=False)
    if conv.table is not None:
        rows.zero_()  # what it does not name gets nothing
    lanes = min(1 << (conv.channels - 1).bit_length(), MOST_CHANNELS)
    tokens = TILE // lanes
    stretch = tokens if grad is None else tokens * TILES_OF_A_SUM
    workers = -(-walk.tokens // stretch)
    grid = conv.batch * workers, -(-conv.channels // lanes)
    shares = None
    if grad is not None:
        shares = u.new_empty(grid[0], conv.width + 1, conv.channels, dtype=torch.float32)
    if all(grid):
        with torch.cuda.device_of(u):
            convolve[grid](
                array(u), None if grad is None else array(with_all_axes("u", grad[None])),
                array(conv.weight[None, None, None]),
                None if conv.bias is None else array(conv.bias[None, None, None, :, None]),
                array(rows), shares, walk, conv.channels, before, workers, stretch,
                WIDTH=conv.width, SILU=conv.has_silu, BT=tokens, BD=lanes, **COMPILED,
            )  # fmt: skip
    put_back(rows, result)
    return u.new_zeros(()) if shares is None else shares.sum(0)


def _walk(conv: Conv) -> Walk:
    """A route as the kernel gets it: by its loops, or by lists where those do not tell."""
    order, device = conv.order(), conv.u.device
    check_count(max(prod(conv.space), order.length))
    _, mid_count, fast_count = order.counts
    slow, mid, fast = order.strides
    loops = fast_count, mid_count, fast, mid, slow, order.start, order.run, order.window
    if order.table is None and order.offsets is None:
        return Walk(order.length, *loops, None, 0, None)
    begins, lengths = order.cuts(device)
    piece = torch.repeat_interleave(lengths)
    voxels = order.voxels(device)[:, : len(piece)]
    # Neighbours are those that are there: they come first in their piece.
    closed = (2 * piece + (voxels < 0)).argsort(dim=1, stable=True)
    voxels = voxels.gather(1, closed)
    bounds = torch.stack([begins[piece], (begins + lengths)[piece]]).int()
    return Walk(len(piece), *loops, voxels, voxels.stride(0) if len(voxels) > 1 else 0, bounds)

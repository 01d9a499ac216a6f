"""The scan as its recurrence is written, one token at a time, in ops that autograd can follow to any order.

Held to `umamba_seg.kernels.torch.scan` by a test. Gives second derivatives; too slow for training.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import Scan


def selective_scan(scan: Scan) -> tuple[Tensor, Tensor]:
    """y and the last state (q, d, n)."""
    dtype = scan.state_dtype
    u, delta = (scan.tokens_first(x).to(dtype) for x in (scan.u, scan.delta))
    A = scan.A.to(dtype)
    B, C = (_per_channel(scan, x).to(dtype) for x in (scan.B, scan.C))
    if scan.delta_bias is not None:
        delta = delta + scan.delta_bias.to(dtype)
    dt = torch.logaddexp(delta, delta.new_zeros(())) if scan.delta_softplus else delta
    start = _initial_state(scan)

    if scan.cu_seqlens is None:
        y, last = _recur(dt, dt * u, A, B, C, start, scan.reverse)
    else:
        pieces = [
            _recur(dt[:, a:b], (dt * u)[:, a:b], A, B[:, a:b], C[:, a:b], start[q : q + 1], scan.reverse)
            for q, (a, b) in enumerate(pairwise(scan.packed_ends()))
        ]
        y, last = torch.cat([y for y, _ in pieces], dim=1), torch.cat([last for _, last in pieces])
    if scan.D is not None:
        y = y + u * scan.D.to(dtype)
    if scan.z is not None:
        y = y * F.silu(scan.tokens_first(scan.z).to(dtype))
    return (y if scan.layout == "bld" else y.transpose(1, 2)).to(scan.y_dtype), last


def second_derivatives(
    scan: Scan, grad_y: Tensor | None, grad_last: Tensor | None, directions: Sequence[Tensor | None]
) -> dict[str, Tensor | None]:
    """The derivative of the scan's gradients along `directions`, by the name of what it is taken for.

    Args:
        grad_y: Where the gradients were taken; so is `grad_last`.
        directions: One for each of `scan.differentiable()`; None stands for zero.
    """
    go_on = torch.is_grad_enabled()  # off unless a third derivative is wanted
    with torch.enable_grad():
        inputs: dict[str, Any] = {name: _alias(value) for name, value in scan.differentiable().items()}
        seeds = {name: _alias(x) for name, x in (("grad_y", grad_y), ("grad_last", grad_last)) if x is not None}
        y, last = selective_scan(replace(scan, **inputs))
        outputs = [x for x, grad in ((y, grad_y), (last, grad_last)) if grad is not None]
        first = torch.autograd.grad(
            outputs, list(inputs.values()), list(seeds.values()), create_graph=True, materialize_grads=True
        )
        moved = [(x, v) for x, v in zip(first, directions, strict=True) if v is not None and x.requires_grad]
        wanted = inputs | seeds
        second = torch.autograd.grad(
            [x for x, _ in moved], list(wanted.values()), [v for _, v in moved], create_graph=go_on, allow_unused=True
        )
    return dict(zip(wanted, second, strict=True))


def _per_channel(scan: Scan, x: Tensor) -> Tensor:  # (d, n), or B and C as they vary over tokens -> (b, l, d, n)
    if x.dim() == 2:
        return x.expand(scan.batch, scan.length, -1, -1)
    x = scan.tokens_first(x)
    if x.dim() == 3:
        x = x.unsqueeze(2)
    return x.repeat_interleave(scan.channels // x.shape[2], dim=2)


def _initial_state(scan: Scan) -> Tensor:
    if scan.initial_state is not None:
        return scan.initial_state.to(scan.state_dtype)
    return scan.u.new_zeros((scan.sequences, scan.channels, scan.states), dtype=scan.state_dtype)


def _recur(dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    steps = list(zip(*(v.unbind(1) for v in (dt, x, B, C)), strict=True))
    ys = []
    for dt_t, x_t, B_t, C_t in reversed(steps) if reverse else steps:  # (b, d), (b, d), (b, d, n), (b, d, n)
        h = torch.exp(dt_t[..., None] * A) * h + x_t[..., None] * B_t
        ys.append((C_t * h).sum(-1))
    if not ys:
        return dt, h
    return torch.stack(ys[::-1] if reverse else ys, dim=1), h


def _alias(x: Tensor) -> Tensor:
    """The same values as a node of its own: u may be computed from delta, and still each wants its own derivative."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

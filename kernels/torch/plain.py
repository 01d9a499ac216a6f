"""The scan as its recurrence is written, one token at a time, in ops that autograd can follow to any order.

Held to `umamba_seg.kernels.torch.scan` by a test. Gives second derivatives; too slow for training.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.routes import Order
from umamba_seg.kernels.torch import second

SERIES_BELOW = 1.0  # of |dt * A|, where the exact gain is summed up as a series: a quotient has no derivatives at A = 0
SERIES_TERMS = 24


def scan_volume(scan: Scan) -> tuple[Tensor, Tensor]:
    """y (k or 1, b, *space, d), and the last states (k, b, s, d, n)."""
    merged, lasts = [], []
    for route, order in enumerate(scan.orders()):
        y, last = _scan_route(scan, route, order)
        merged.append(y)
        lasts.append(last)
    most = max(last.shape[1] for last in lasts)
    last = torch.stack([F.pad(last, (0, 0, 0, 0, 0, most - last.shape[1])) for last in lasts])
    y = torch.stack(merged)
    y = y if scan.is_stacked else y.sum(0, keepdim=True)
    return y.unflatten(2, scan.space).to(scan.y_dtype), last


def second_derivatives(
    scan: Scan, grad_y: Tensor | None, grad_last: Tensor | None, directions: Sequence[Tensor | None]
) -> dict[str, Tensor | None]:
    """The derivative of the scan's gradients along `directions`; see `second.second_derivatives`."""

    def compute(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return scan_volume(replace(scan, **inputs))

    seeds = {"grad_y": grad_y, "grad_last": grad_last}
    return second.second_derivatives(compute, scan.differentiable(), seeds, directions)


def _scan_route(scan: Scan, route: int, order: Order) -> tuple[Tensor, Tensor]:  # (b, v, d), (b, s, d, n)
    tokens = _Tokens(scan, route, order)
    u, delta, B, C = (tokens.read(name) for name in ("u", "delta", "B", "C"))
    delta = delta + tokens.own("delta_bias") if scan.delta_bias is not None else delta
    dt = torch.logaddexp(delta, delta.new_zeros(())) if scan.delta_softplus else delta
    dt = tokens.hide(dt * scan.scale(route))
    start = u.new_zeros(scan.batch, order.pieces, scan.channels, scan.states)
    start = start if scan.initial_state is None else scan.initial_state[route].to(dt.dtype)

    outputs, lasts = list(u.new_zeros(u.shape).unbind(1)), []
    for piece, (begin, end) in enumerate(order.bounds()):
        h, before = start[:, piece], u.new_zeros(scan.batch, scan.channels)
        for t in range(begin, end):
            exponent = dt[:, t, :, None] * tokens.own("A")  # (b, d, n)
            gain = dt[:, t, :, None] * (_relative_gain(exponent) if scan.exact_gain else 1)
            decayed = torch.exp(exponent) * h
            h = decayed + gain * u[:, t, :, None] * B[:, t]
            read = (C[:, t] * (decayed if scan.exclusive == "own" else h)).sum(-1)
            outputs[t] = before if scan.exclusive == "shift" else read
            before = torch.where(tokens.is_there[:, t, None], read, before)
        lasts.append(h)

    y = torch.stack(outputs, dim=1) if outputs else u
    if scan.D is not None:
        y = y + tokens.own("D") * u
    if scan.weights is not None:
        y = y * tokens.own("weights")[:, None]
    if scan.z is not None:
        y = y * F.silu(tokens.read("z"))
    last = torch.stack(lasts, dim=1) if lasts else start[:, :0]
    return tokens.scatter(y * scan.y_scale), last


class _Tokens:
    """The tokens of one route, all of them at once."""

    def __init__(self, scan: Scan, route: int, order: Order) -> None:
        self.scan, self.route = scan, route
        end = max((end for _, end in order.bounds()), default=0)  # tables may be longer than their pieces
        self.voxels = order.voxels(scan.u.device)[:, :end].expand(scan.batch, -1)  # (b, t)
        self.items = torch.arange(scan.batch, device=scan.u.device)[:, None]
        self.is_there = self.voxels >= 0

    def own(self, name: str) -> Tensor:
        """What the route has of a tensor."""
        x: Tensor = getattr(self.scan, name)
        return x[self.route if x.shape[0] > 1 else 0].to(self.scan.state_dtype)

    def read(self, name: str) -> Tensor:
        """The tokens of a tensor, zero for those that are not there: (b, t, d), or (b, t, d, n) of B and C."""
        x = self.own(name)
        if name in ("B", "C"):
            x = x.expand(self.scan.batch, *self.scan.space, -1, -1)
            x = x.repeat_interleave(self.scan.channels // x.shape[-2], dim=-2)
        x = x.flatten(1, len(self.scan.space))
        return torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)[self.items, self.voxels]  # -1 is the zero at the end

    def hide(self, x: Tensor) -> Tensor:
        """Put zero into x (b, t, d) for tokens that are not there."""
        return x.masked_fill(~self.is_there[..., None], 0)

    def scatter(self, x: Tensor) -> Tensor:
        """(b, t, d) -> (b, v, d), each voxel the sum of its tokens."""
        voxels = math.prod(self.scan.space)
        y = x.new_zeros(self.scan.batch, voxels + 1, x.shape[2])
        return y.index_put((self.items, self.voxels), x, accumulate=True)[:, :voxels]


def _relative_gain(exponent: Tensor) -> Tensor:
    """(exp(x) - 1) / x, which is 1 at x = 0."""
    is_near = exponent.abs() < SERIES_BELOW
    x = exponent.masked_fill(~is_near, 0)
    series = torch.zeros_like(x)
    for k in reversed(range(SERIES_TERMS)):
        series = series * x + 1 / math.factorial(k + 1)
    far = exponent.masked_fill(is_near, 1)
    return torch.where(is_near, series, torch.expm1(far) / far)

"""The recurrence over the tokens of one block, forward and backward. It knows rows of tokens and nothing of routes.

k chunks of t steps run side by side, so that one torch call makes a step of all rows, chunks, channels and states:

    1. from a state of zero, every chunk finds the state it would end in;
    2. chunk by chunk, start = end of the one before + exp(A * sum dt) * its start: no product of decays, no division;
    3. from its start, every chunk runs again, and its states are kept.

The adjoint goes through the same three stages against the direction of the scan.

Shapes, beside those of `problem.py`: r rows, l tokens, t steps, c chunks, p channels of a group.
A state is (g, n, p): channels come last, so that long rows of memory share their B and C.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umamba_seg.kernels.torch.blocks import Block

SERIES_BELOW = 0.5  # of |dt * A|, where the slope of the exact gain is summed up as a series of so many terms:
SERIES_TERMS = 15  # the next is 3e-18 of the whole


@dataclass(frozen=True, slots=True)
class Gradients:
    """What one block gives: `before` (r, g, n, p) is the adjoint of the state before it; u, dt (r, l, d); A (g, n, p).

    B and C are (r, l, g, n), or (g, n, p) where they do not vary over tokens.
    """

    before: Tensor
    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor


class Recurrence:
    """h = exp(dt * A) * h + gain * u * B, and what is read of it: o = sum_n C * h.

    Args:
        block: The tokens.
        dt: (r, l, d); so is `u`.
        A: (g, n, p).
        A_log2: A / log(2), for exp2, which takes half the time of exp in torch on the CPU.
        B: (r, l, g, n), or (g, n, p) when it is the same for all tokens. So is `C`.
        exact_gain: See `Scan`; so is `exclusive`: for "shift", C is that of the token before.
    """

    def __init__(
        self,
        block: Block,
        dt: Tensor,
        u: Tensor,
        A: Tensor,
        A_log2: Tensor,
        B: Tensor,
        C: Tensor,
        *,
        exact_gain: bool,
        exclusive: str,
    ) -> None:
        self.block, self.exclusive, self.A, self.A_log2 = block, exclusive, A, A_log2
        self.dt, self.u = dt, u
        self.dt_folded = self._fold(dt)
        self.B, self.C = (x if x.dim() == 3 else block.fold(x).unsqueeze(-1) for x in (B, C))  # (t, r, c, g, n, 1)
        self.decay = torch.mul(self.dt_folded, A_log2).exp2_()  # (t, r, c, g, n, p)
        self.gain = _exact_gain(self.dt_folded, A) if exact_gain else None  # (t, r, c, g, n, p)
        self.x = self._fold(dt * u) if self.gain is None else self.gain * self._fold(u)  # (t, r, c, g, n or 1, p)

    def states(self, start: Tensor) -> Tensor:
        """(r, g, n, p) before the block -> (t + 1, r, c, g, n, p): before each step, and behind the last."""
        h = self.decay.new_empty((len(self.decay) + 1, *self.decay.shape[1:]))
        torch.mul(self.x, self.B, out=h[1:])
        self._walk(h, start)
        return h

    def output(self, h: Tensor) -> Tensor:
        """What the tokens read of the states: (r, l, d)."""
        return self._unfold((self._read(h) * self.C).sum(-2))

    def gradients(self, h: Tensor, grad: Tensor, adjoint: Tensor) -> Gradients:
        """All gradients, given that of the output and the adjoint of the state behind the block.

        Let e[t] be the adjoint of the state before step t. Then e[t] = decay[t] * (C[t] * grad[t] + e[t + 1]), or
        e[t] = C[t] * grad[t] + decay[t] * e[t + 1] where the state before the step is read: the recurrence, backward.
        """
        grad = self._fold(grad)
        grad_C = self._sum_to(self.C, self._read(h) * grad)
        g, e = grad * self.C, torch.empty_like(h)
        if self.exclusive == "shift":
            e[:-1] = g
        else:
            torch.mul(self.decay, g, out=e[:-1])
        self._walk(e, adjoint, is_backward=True)
        before = e[0, :, 0].clone()
        g = e[1:].clone() if self.exclusive else g.add_(e[1:])  # the adjoint of what a step adds to the state
        grad_exponent = (g * self.decay if self.exclusive == "shift" else e[:-1]).mul_(h[:-1])  # of dt * A

        grad_A = (grad_exponent * self.dt_folded).sum((0, 1, 2))
        grad_dt = self._unfold((grad_exponent * self.A).sum(-2))
        grad_B = self._sum_to(self.B, g * self.x)
        g *= self.B
        if self.gain is None:
            grad_x = self._unfold(g.sum(-2))
            return Gradients(before, grad_x * self.dt, grad_dt + grad_x * self.u, grad_A, grad_B, grad_C)
        grad_u = self._unfold((g * self.gain).sum(-2))
        g *= self._fold(self.u)  # the adjoint of the gain
        grad_A += (g * _gain_slope(self.dt_folded, self.A, self.decay, self.gain)).sum((0, 1, 2))
        return Gradients(before, grad_u, grad_dt + self._unfold((g * self.decay).sum(-2)), grad_A, grad_B, grad_C)

    def _read(self, h: Tensor) -> Tensor:  # (t + 1, ...) -> (t, ...)
        if not self.exclusive:
            return h[1:]
        return h[:-1] if self.exclusive == "shift" else self.decay * h[:-1]

    def _fold(self, x: Tensor) -> Tensor:  # (r, l, d) -> (t, r, c, g, 1, p)
        x, groups = self.block.fold(x), self.A.shape[0]
        return x.reshape(*x.shape[:-1], groups, 1, x.shape[-1] // groups)

    def _unfold(self, x: Tensor) -> Tensor:  # (t, r, c, g, p) -> (r, l, d)
        return self.block.unfold(x.flatten(-2))

    def _sum_to(self, coefficient: Tensor, x: Tensor) -> Tensor:
        """Sum x (t, r, c, g, n, p) over what shares a value of B or C."""
        if coefficient.dim() == 3:
            return x.sum((0, 1, 2))
        return self.block.unfold(x.sum(-1))

    def _walk(self, path: Tensor, start: Tensor, *, is_backward: bool = False) -> None:
        """Walk path[i] = path[i] + decay[i - 1] * path[i - 1] from the inputs in path[1:], or its mirror image.

        Args:
            path: (t + 1, r, c, g, n, p), changed in place; backward, inputs lie in path[:-1].
            start: (r, g, n, p), what enters the first chunk; backward, the last chunk.
        """
        order = slice(None, None, -1 if is_backward else 1)
        decays = self.decay.unbind()[order]
        previous, *inputs = path.unbind()[order]
        previous.copy_(self._chunk_starts(decays, inputs, start, order))
        for decay, place in zip(decays, inputs, strict=True):
            previous = torch.addcmul(place, decay, previous, out=place)

    def _chunk_starts(
        self, decays: Sequence[Tensor], inputs: Sequence[Tensor], start: Tensor, order: slice
    ) -> Tensor:  # (r, c, g, n, p)
        if self.block.chunks == 1:
            return start.unsqueeze(1)
        end = inputs[0].clone()
        for decay, entry in zip(decays[1:], inputs[1:], strict=True):
            torch.addcmul(entry, decay, end, out=end)
        whole = (self.dt_folded.sum(0) * self.A_log2).exp2_()
        may_overflow = not whole.amax().item() < math.inf
        starts = [start]
        for decay, entry in zip(whole.unbind(1)[order][:-1], end.unbind(1)[order][:-1], strict=True):
            if may_overflow:  # inf * 0 is nan, where step by step the state stays zero
                decay = decay.masked_fill(starts[-1] == 0, 0)
            starts.append(torch.addcmul(entry, decay, starts[-1]))
        return torch.stack(starts[order], dim=1)


def _exact_gain(dt: Tensor, A: Tensor) -> Tensor:
    """(exp(dt * A) - 1) / A, which is dt where A is 0."""
    return torch.where(A == 0, dt, torch.expm1(dt * A) / A)


def _gain_slope(dt: Tensor, A: Tensor, decay: Tensor, gain: Tensor) -> Tensor:
    """The derivative of the exact gain by A: (dt * decay - gain) / A, where that does not cancel out.

    With x = dt * A it is dt**2 * ((x - 1) * exp(x) + 1) / x**2 = dt**2 * sum_k (k + 1) / (k + 2)! * x**k.
    """
    x = dt * A
    series = torch.zeros_like(x)
    for k in reversed(range(SERIES_TERMS)):
        series = series.mul_(x).add_((k + 1) / math.factorial(k + 2))
    return torch.where(x.abs() < SERIES_BELOW, dt * dt * series, (dt * decay - gain) / A)

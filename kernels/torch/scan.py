"""Selective scan in plain torch, on any device: O(l) time and memory, forward and backward.

Tokens are walked block by block, and the arrays of a block fit the cache. Inside, k chunks of t steps run side by side,
so that one torch call makes a step of all rows, chunks, channels and states:

    1. from a state of zero, every chunk finds the state it would end in;
    2. chunk by chunk, start = end of the one before + exp(A * sum dt) * its start: no product of decays, no division;
    3. from its start, every chunk runs again, and its states are kept.

The forward pass saves the state before each block. The backward pass computes a block again from there and sends the
adjoint through the same three stages against the direction of the scan.

Shapes, beside those of `problem.py`: r rows, the batch items of a block, t steps, k chunks, p channels of a group.
A state is (g, n, p): channels come last, so that long rows of memory share their B and C.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch.blocks import Block, blocks, slots


def checkpoint_size(scan: Scan) -> int:
    """How many elements the states before the blocks have."""
    return math.prod(_checkpoint_shape(scan))


def forward(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state (q, d, n), and the states before the blocks."""
    constants = _Constants(scan)
    y = scan.u.new_empty(scan.u.shape, dtype=scan.y_dtype)
    state = _states_or_zero(scan, scan.initial_state)
    checkpoints = state.new_zeros(_checkpoint_shape(scan))
    for block in blocks(scan):
        checkpoints[block.rows, block.slot] = state[block.sequences]
        piece = _Piece(constants, block)
        h = piece.states(state[block.sequences])
        state[block.sequences] = h[-1, :, -1]
        out = piece.ungated(h)
        if scan.z is not None:
            out *= F.silu(piece.read(scan.z))
        piece.write(y, out)
    return y, _ungroup(state), checkpoints.flatten()


def backward(scan: Scan, checkpoints: Tensor, grad_y: Tensor | None, grad_last: Tensor | None) -> dict[str, Tensor]:
    """The gradients of all tensors of the scan, by name."""
    constants, checkpoints = _Constants(scan), checkpoints.view(_checkpoint_shape(scan))
    if grad_y is None:
        grad_y = scan.u.new_zeros(()).expand(scan.u.shape)
    adjoint = _states_or_zero(scan, grad_last)  # of the state behind the block
    gradients = _Gradients(constants)
    for block in reversed(list(blocks(scan))):
        piece = _Piece(constants, block)
        h = piece.states(checkpoints[block.rows, block.slot])
        grad = piece.read(grad_y)
        if scan.z is not None:
            z = piece.read(scan.z)
            gate = z.sigmoid()
            piece.write(gradients.varying["z"], grad * piece.ungated(h) * gate * (1 + z * (1 - gate)))
            grad = grad * z * gate
        adjoint[block.sequences] = _block_gradients(piece, h, grad, adjoint[block.sequences], gradients)
    return gradients.finished(adjoint)


class _Constants:
    """What does not vary over tokens, in the type of the state: A, B, C (g, n, p), D, delta_bias (d,)."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self.dtype = scan, scan.state_dtype
        self.A = _group(scan.A.to(self.dtype), scan.groups)
        self.A_log2 = self.A / math.log(2)  # for exp2, which takes half the time of exp in torch on the CPU
        self.B, self.C = (_group(x.to(self.dtype), scan.groups) if x.dim() == 2 else None for x in (scan.B, scan.C))
        self.D, self.delta_bias = (None if x is None else x.to(self.dtype) for x in (scan.D, scan.delta_bias))


class _Piece:
    """The tokens of one block in the order of the scan, and their decays."""

    def __init__(self, constants: _Constants, block: Block) -> None:
        self.constants, self.block, self.scan = constants, block, constants.scan
        self.u = self.read(self.scan.u)
        self.dt = self._read_dt()  # (r, l, d)
        self.dt_folded = self.fold(self.dt)
        self.x = self.fold(self.dt * self.u)
        self.B = self._read_coefficient(self.scan.B) if constants.B is None else constants.B
        self.C = self._read_coefficient(self.scan.C) if constants.C is None else constants.C
        self.decay = torch.mul(self.dt_folded, constants.A_log2).exp2_()  # (t, r, k, g, n, p)

    def read(self, x: Tensor) -> Tensor:
        """The tokens of a tensor like u: (r, l, d)."""
        return self.block.read(self.scan.tokens_first(x), self.constants.dtype)

    def write(self, target: Tensor, x: Tensor) -> None:
        """Put x (r, l, d) into a tensor like u."""
        self.block.write(self.scan.tokens_first(target), x)

    def fold(self, x: Tensor) -> Tensor:
        """(r, l, d) -> (t, r, k, g, 1, p)."""
        x, groups = self.block.fold(x), self.scan.groups
        return x.reshape(*x.shape[:-1], groups, 1, x.shape[-1] // groups)

    def unfold(self, x: Tensor) -> Tensor:
        """(t, r, k, g, p) -> (r, l, d)."""
        return self.block.unfold(x.flatten(-2))

    def states(self, start: Tensor) -> Tensor:
        """(r, g, n, p) before the block -> (t + 1, r, k, g, n, p): before each step, and behind the last."""
        h = self.decay.new_empty((len(self.decay) + 1, *self.decay.shape[1:]))
        torch.mul(self.x, self.B, out=h[1:])
        self.recur(h, start)
        return h

    def ungated(self, h: Tensor) -> Tensor:
        """The output before the gate: (r, l, d)."""
        y = self.unfold((h[1:] * self.C).sum(-2))
        return y if self.constants.D is None else y + self.u * self.constants.D

    def recur(self, path: Tensor, start: Tensor, *, is_backward: bool = False) -> None:
        """Walk path[i] = path[i] + decay[i - 1] * path[i - 1] from the inputs in path[1:], or its mirror image.

        Args:
            path: (t + 1, r, k, g, n, p), changed in place; backward, inputs lie in path[:-1].
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
    ) -> Tensor:  # (r, k, g, n, p)
        if self.block.chunks == 1:
            return start.unsqueeze(1)
        end = inputs[0].clone()
        for decay, entry in zip(decays[1:], inputs[1:], strict=True):
            torch.addcmul(entry, decay, end, out=end)
        whole = (self.dt_folded.sum(0) * self.constants.A_log2).exp2_()
        may_overflow = not whole.amax().item() < math.inf
        starts = [start]
        for decay, entry in zip(whole.unbind(1)[order][:-1], end.unbind(1)[order][:-1], strict=True):
            if may_overflow:  # inf * 0 is nan, where step by step the state stays zero
                decay = decay.masked_fill(starts[-1] == 0, 0)
            starts.append(torch.addcmul(entry, decay, starts[-1]))
        return torch.stack(starts[order], dim=1)

    def _read_dt(self) -> Tensor:
        delta = self.read(self.scan.delta)
        if self.constants.delta_bias is not None:
            delta = delta + self.constants.delta_bias
        return torch.logaddexp(delta, delta.new_zeros(())) if self.scan.delta_softplus else delta

    def _read_coefficient(self, x: Tensor) -> Tensor:
        tokens = self.block.read(_with_groups(self.scan, x), self.constants.dtype)  # (r, l, g, n)
        return self.block.fold(tokens).unsqueeze(-1)  # (t, r, k, g, n, 1)


def _block_gradients(piece: _Piece, h: Tensor, grad: Tensor, adjoint: Tensor, gradients: "_Gradients") -> Tensor:
    """Collect what one block gives to the gradients, that of z aside; return the adjoint of the state before it.

    Let g be the adjoint of h, and e[t] = decay[t] * g[t] what step t hands to the state before. Then
    e[t] = decay[t] * C[t] * grad[t] + decay[t] * e[t + 1] is the recurrence of the scan, backward.
    """
    constants = piece.constants
    grad_folded = piece.fold(grad)
    gradients.add_coefficient("C", piece, h[1:] * grad_folded)
    g = grad_folded * piece.C
    e = torch.empty_like(h)
    torch.mul(piece.decay, g, out=e[:-1])
    piece.recur(e, adjoint, is_backward=True)
    g += e[1:]
    before = e[0, :, 0].clone()

    gradients.add_coefficient("B", piece, g * piece.x)
    grad_x = piece.unfold((g * piece.B).sum(-2))
    grad_exponent = e[:-1].mul_(h[:-1])  # of dt * A
    grad_dt = piece.unfold((grad_exponent * constants.A).sum(-2)) + grad_x * piece.u
    gradients.constant["A"] += (grad_exponent * piece.dt_folded).sum((0, 1, 2))
    grad_u = grad_x * piece.dt
    if constants.D is not None:
        gradients.constant["D"] += (grad * piece.u).sum((0, 1))
        grad_u += grad * constants.D
    if piece.scan.delta_softplus:
        grad_dt *= -torch.expm1(-piece.dt)
    if constants.delta_bias is not None:
        gradients.constant["delta_bias"] += grad_dt.sum((0, 1))
    piece.write(gradients.varying["delta"], grad_dt)
    piece.write(gradients.varying["u"], grad_u)
    return before


class _Gradients:
    """Gradients in the making: written in place where they vary over tokens, else summed in the type of the state."""

    def __init__(self, constants: _Constants) -> None:
        self.scan, given = constants.scan, constants.scan.differentiable()
        fixed = [name for name in ("A", "B", "C", "D", "delta_bias") if name in given and given[name].dim() < 3]
        self.constant: dict[str, Tensor] = {name: torch.zeros_like(getattr(constants, name)) for name in fixed}
        names = [name for name in ("u", "delta", "B", "C", "z") if name in given and name not in fixed]
        self.varying: dict[str, Tensor] = {name: given[name].new_empty(given[name].shape) for name in names}

    def add_coefficient(self, name: str, piece: _Piece, x: Tensor) -> None:
        """Add x (t, r, k, g, n, p), summed over what shares a value, to the gradient of B or C."""
        if name in self.constant:
            self.constant[name] += x.sum((0, 1, 2))
            return
        x = x.sum_to_size(getattr(piece, name).shape).squeeze(-1)
        piece.block.write(_with_groups(self.scan, self.varying[name]), piece.block.unfold(x))

    def finished(self, adjoint: Tensor) -> dict[str, Tensor]:
        """All of them, given the adjoint of the initial state, in the shapes and types of the tensors."""
        sums = {name: x if x.dim() == 1 else _ungroup(x) for name, x in self.constant.items()}
        sums["initial_state"] = _ungroup(adjoint)
        given = self.scan.differentiable()
        return self.varying | {name: x.to(given[name].dtype).contiguous() for name, x in sums.items() if name in given}


def _checkpoint_shape(scan: Scan) -> tuple[int, ...]:  # (b, slots, g, n, p)
    return scan.batch, slots(scan), scan.groups, scan.states, scan.channels // scan.groups


def _group(x: Tensor, groups: int) -> Tensor:  # (*, d, n) -> (*, g, n, p)
    return x.reshape(*x.shape[:-2], groups, x.shape[-2] // groups, x.shape[-1]).transpose(-1, -2).contiguous()


def _ungroup(x: Tensor) -> Tensor:  # (*, g, n, p) -> (*, d, n)
    return x.transpose(-1, -2).flatten(-3, -2).contiguous()


def _states_or_zero(scan: Scan, x: Tensor | None) -> Tensor:  # (q, d, n) -> (q, g, n, p), memory of its own
    shape = (scan.sequences, scan.channels, scan.states)
    state = scan.u.new_zeros(shape, dtype=scan.state_dtype) if x is None else x.to(scan.state_dtype, copy=True)
    return _group(state, scan.groups)


def _with_groups(scan: Scan, x: Tensor) -> Tensor:  # B or C as it varies over tokens -> (b, l, g, n)
    x = scan.tokens_first(x)
    return x if x.dim() == 4 else x.unsqueeze(2)

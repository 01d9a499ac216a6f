"""Selective scans in plain torch, on any device: O(l) time and memory, forward and backward.

Route by route, pieces become rows of tokens, which are read from the volumes block by block; the arrays of a block fit
the cache. `Recurrence` scans a block from the state before it. The forward pass keeps that state, and the backward
pass computes the block again from there.

Shapes, beside those of `problem.py`: r rows, l tokens, p channels of a group. A state is (g, n, p).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch.blocks import Block
from umamba_seg.kernels.torch.gradients import Gradients, add_tokens
from umamba_seg.kernels.torch.operands import Operands, flat, of_route
from umamba_seg.kernels.torch.parts import parts
from umamba_seg.kernels.torch.recurrence import Recurrence
from umamba_seg.kernels.torch.runs import Run, kept_states, runs
from umamba_seg.kernels.torch.total import Total


def forward(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last states, and the states before the blocks."""
    last, checkpoints = scan.new_last_state(), scan.new_checkpoints().zero_()
    merged, kept = Total(scan.new_y(), len(scan.space), scan.state_dtype), kept_states(scan, checkpoints)
    for operands, run in _work(scan):
        part, state = run.part, operands.states(scan.initial_state, run)
        for block in run.blocks:
            if block.tokens.start and scan.is_differentiated:
                run.rows.put(part.channels(kept[run.route]), run.slots(block), operands.ungroup(state).mT)
            piece = _Piece(operands, run, block)
            h = piece.recurrence.states(state)
            state = h[-1, :, -1].clone()
            add_tokens(merged, "y", run, block, piece.output(h))
        if scan.keeps_last:
            run.rows.put(part.channels(last[run.route], -2), run.pieces, operands.ungroup(state))
    return merged.finished(), last, checkpoints


def backward(scan: Scan, checkpoints: Tensor, grad_y: Tensor | None, grad_last: Tensor | None) -> dict[str, Tensor]:
    """The gradients of all tensors of the scan, by name."""
    gradients, kept = Gradients(scan), kept_states(scan, checkpoints)
    grad_y = flat(scan, scan.u.new_zeros(()).expand(1, *scan.u.shape[1:]) if grad_y is None else grad_y)
    for operands, run in _work(scan):
        part, adjoint = run.part, operands.states(grad_last, run)
        for block in reversed(run.blocks):
            state = operands.states(scan.initial_state, run)
            if block.tokens.start:
                state = operands.group(run.rows.take(part.channels(kept[run.route]), run.slots(block)).mT)
            piece = _Piece(operands, run, block)
            grad = run.strand.read(part.channels(of_route(grad_y, run.route)), block).to(operands.dtype)
            adjoint = piece.add_gradients(gradients, piece.recurrence.states(state), grad, adjoint)
        gradients.put_start(run, operands.ungroup(adjoint))
    return gradients.finished()


def _work(scan: Scan) -> Iterator[tuple[Operands, Run]]:
    for part in parts(scan):
        operands = Operands(scan, part)
        yield from ((operands, run) for run in runs(scan, part))


class _Piece:
    """The tokens of one block: what happens to them before the recurrence and behind it."""

    def __init__(self, operands: Operands, run: Run, block: Block) -> None:
        self.operands, self.run, self.block, self.scan = operands, run, block, operands.scan
        self.D = operands.constant("D", run)
        self.u = operands.read("u", run, block)
        self.step = self._read_step()  # (r, l, d)
        self.recurrence = Recurrence(
            block, self.step * self.scan.scale(run.route), self.u,
            of_route(operands.constants["A"], run.route), of_route(operands.A_log2, run.route),
            operands.read("B", run, block), operands.read("C", run, block),
            exact_gain=self.scan.exact_gain, exclusive=self.scan.exclusive,
        )  # fmt: skip

    def output(self, h: Tensor) -> Tensor:
        """What the tokens add to y: (r, l, d)."""
        y = self.operands.weighted(self._ungated(h), self.run)
        return y if self.scan.z is None else y * F.silu(self.operands.read("z", self.run, self.block))

    def add_gradients(self, gradients: Gradients, h: Tensor, grad: Tensor, adjoint: Tensor) -> Tensor:
        """Collect what the block gives to all gradients; return the adjoint of the state before it.

        Args:
            gradients: Where to.
            h: The states of the block.
            grad: What came for `output`.
            adjoint: Of the state behind the block: (r, g, n, p).
        """
        grad = self._ungate(gradients, h, grad)
        if self.scan.exclusive == "shift":
            found = self.recurrence.gradients(h, self.run.source.hide(grad, self.block), adjoint)
        else:
            found = self.recurrence.gradients(h, grad, adjoint)
        grad_u = found.u
        if self.D is not None:
            self._add(gradients, "D", (grad * self.u).sum((0, 1)))
            grad_u += grad * self.D
        slope = -torch.expm1(-self.step) if self.scan.delta_softplus else 1.0
        grad_delta = found.dt * slope * self.scan.scale(self.run.route)
        if self.scan.delta_bias is not None:
            self._add(gradients, "delta_bias", self.run.strand.hide(grad_delta, self.block).sum((0, 1)))
        for name, x in (("u", grad_u), ("delta", grad_delta), ("A", found.A), ("B", found.B), ("C", found.C)):
            self._add(gradients, name, self.operands.ungroup(x) if name in self.operands.grouped else x)
        return found.before

    def _ungated(self, h: Tensor) -> Tensor:  # (r, l, d)
        y = self.recurrence.output(h)
        if self.scan.exclusive == "shift":
            y = self.run.source.hide(y, self.block)
        return y if self.D is None else y + self.u * self.D

    def _ungate(self, gradients: Gradients, h: Tensor, grad: Tensor) -> Tensor:
        """Go from the gradient of the output to that of the ungated one, through weights and gate."""
        if self.scan.z is None and self.scan.weights is None:
            return self.operands.weighted(grad, self.run)
        ungated = self._ungated(h)
        if self.scan.z is not None:
            z = self.operands.read("z", self.run, self.block)
            gate = z.sigmoid()
            slope = gate * (1 + z * (1 - gate))
            self._add(gradients, "z", grad * self.operands.weighted(ungated, self.run) * slope)
            grad = grad * z * gate
        if self.scan.weights is not None:
            gradients.add_weights(self.run, grad * ungated * self.scan.y_scale)
        return self.operands.weighted(grad, self.run)

    def _add(self, gradients: Gradients, name: str, x: Tensor) -> None:
        gradients.add(name, self.run, self.block, x)

    def _read_step(self) -> Tensor:
        delta, bias = (
            self.operands.read("delta", self.run, self.block),
            self.operands.constant("delta_bias", self.run),
        )
        delta = delta if bias is None else delta + bias
        step = torch.logaddexp(delta, delta.new_zeros(())) if self.scan.delta_softplus else delta
        return self.run.strand.hide(step, self.block)

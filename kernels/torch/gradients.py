"""What blocks add up to: y, and the gradients of a scan.

Shapes, beside those of `problem.py`: r rows, l tokens, d channels of a part.
"""

import torch
from torch import Tensor

from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch.blocks import Block
from umamba_seg.kernels.torch.operands import COEFFICIENTS, is_constant, of_route
from umamba_seg.kernels.torch.runs import Run
from umamba_seg.kernels.torch.total import Total


def add_tokens(total: Total, name: str, run: Run, block: Block, x: Tensor) -> None:
    """Add what a block has for the tensor `name`: (r, l, d), or for B and C (r, l, g, n)."""
    target = of_route(total.sum, run.route)
    if name not in COEFFICIENTS:
        run.place(name).add(run.part.channels(target), block, x)
        return
    target = run.part.groups(target)
    run.place(name).add(target, block, x.unflatten(2, (target.shape[2], -1)).sum(3))


class Gradients:
    """The gradients of a scan in the making, each a sum over all that shares a value."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self.given = scan, scan.differentiable()
        shapes: dict[str, torch.Size] = {
            name: self.given[name].shape for name in ("A", "D", "delta_bias", "initial_state") if name in self.given
        }
        for name in COEFFICIENTS:
            if is_constant(self.given[name]):
                shapes[name] = torch.Size((self.given[name].shape[0], scan.channels, scan.states))
        if scan.weights is not None:
            shapes["weights"] = torch.Size((scan.number_of_routes, scan.batch, scan.channels))
        self.sums = {name: scan.u.new_zeros(shape, dtype=scan.state_dtype) for name, shape in shapes.items()}
        volumes = [name for name in self.given if name not in self.sums]
        dims, dtype = len(scan.space), scan.state_dtype
        self.totals = {name: Total(torch.empty_like(self.given[name]), dims, dtype) for name in volumes}

    def add(self, name: str, run: Run, block: Block, x: Tensor) -> None:
        """Add what a block gives: (r, l, *) to a volume, else (d,), or (d, n)."""
        if name in self.totals:
            add_tokens(self.totals[name], name, run, block, x)
        else:
            axis = -1 if name in ("D", "delta_bias") else -2
            run.part.channels(of_route(self.sums[name], run.route), axis).add_(x)

    def add_weights(self, run: Run, x: Tensor) -> None:
        """Add (r, l, d), what the weights would get if every token had its own."""
        run.part.channels(self.sums["weights"])[run.route, run.rows.items] += run.rows.split(x).sum((1, 2))

    def put_start(self, run: Run, adjoint: Tensor) -> None:
        """Set the gradient of initial states: (r, d, n)."""
        if "initial_state" in self.sums:
            run.rows.put(run.part.channels(self.sums["initial_state"][run.route], -2), run.pieces, adjoint)

    def finished(self) -> dict[str, Tensor]:
        """All of them, in the shapes, types and strides of the tensors."""
        summed = {name: torch.empty_like(self.given[name]).copy_(self._shaped(name)) for name in self.sums}
        return {name: total.finished() for name, total in self.totals.items()} | summed

    def _shaped(self, name: str) -> Tensor:
        x, shape = self.sums[name], self.given[name].shape
        if name == "weights":
            return x.sum_to_size(shape)
        return x.unflatten(1, (shape[-2], -1)).sum(2).view(shape) if name in COEFFICIENTS else x

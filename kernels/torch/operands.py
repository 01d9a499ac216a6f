"""What blocks of tokens read: some channels of the tensors of a scan.

Shapes, beside those of `problem.py`: d channels of a part, g groups of them that differ in a B or C that varies over
tokens, p channels of a group; r rows, l tokens. A state is (g, n, p).
"""

import math

from torch import Tensor

from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch.blocks import Block
from umamba_seg.kernels.torch.parts import Part
from umamba_seg.kernels.torch.runs import Run

COEFFICIENTS = ("B", "C")


class Operands:
    """The tensors of a scan: `volumes` vary over tokens, `constants` do not and have the type of the arithmetic.

    Volumes are (k, b, v, d), B and C (k, b, v, g, n). Constants are A, B, C: (k, g, n, p), and D, delta_bias: (k, d).
    """

    def __init__(self, scan: Scan, part: Part) -> None:
        self.scan, self.part, self.dtype = scan, part, scan.state_dtype
        given = scan.differentiable()
        volumes: dict[str, Tensor] = {name: part.channels(given[name]) for name in ("u", "delta", "z") if name in given}
        volumes |= {name: part.groups(given[name]) for name in COEFFICIENTS if not is_constant(given[name])}
        self.volumes = {name: flat(scan, x) for name, x in volumes.items()}
        self.groups = math.lcm(*(x.shape[-2] for name, x in volumes.items() if name in COEFFICIENTS))
        self.constants: dict[str, Tensor] = {
            name: part.channels(given[name]).to(self.dtype) for name in ("D", "delta_bias") if name in given
        }
        self.constants["A"] = self.group(part.channels(scan.A, -2).to(self.dtype))
        for name in COEFFICIENTS:
            if name not in volumes:
                x = given[name].to(self.dtype).flatten(1, -3).squeeze(1)  # (k, g, n)
                x = x.repeat_interleave(scan.channels // x.shape[1], dim=1)
                self.constants[name] = self.group(part.channels(x, -2))
        self.grouped = {"A", *COEFFICIENTS} - volumes.keys()
        self.A_log2 = self.constants["A"] / math.log(2)
        self.factor = self._factor()

    def group(self, x: Tensor) -> Tensor:
        """(*, d, n) -> (*, g, n, p)."""
        return x.unflatten(-2, (self.groups, -1)).transpose(-1, -2).contiguous()

    def ungroup(self, x: Tensor) -> Tensor:
        """(*, g, n, p) -> (*, d, n)."""
        return x.transpose(-1, -2).flatten(-3, -2)

    def constant(self, name: str, run: Run) -> Tensor | None:
        """What a route has of a constant, if it is given."""
        return of_route(self.constants[name], run.route) if name in self.constants else None

    def read(self, name: str, run: Run, block: Block) -> Tensor:
        """The tokens of a block: (r, l, d); of B and C (r, l, g, n), or the constant they are."""
        if name in self.constants:
            return of_route(self.constants[name], run.route)
        x = run.place(name).read(of_route(self.volumes[name], run.route), block).to(self.dtype)
        if name in COEFFICIENTS and x.shape[2] < self.groups:
            return x.repeat_interleave(self.groups // x.shape[2], dim=2)
        return x

    def states(self, x: Tensor | None, run: Run) -> Tensor:
        """The rows' part of states (k, b, s, d, n), or zero: (r, g, n, p)."""
        if x is not None:
            return self.group(run.rows.take(self.part.channels(x[run.route], -2), run.pieces).to(self.dtype))
        shape = (math.prod(run.rows.shape), self.groups, self.scan.states, self.part.width // self.groups)
        return self.scan.u.new_zeros(shape, dtype=self.dtype)

    def weighted(self, x: Tensor, run: Run) -> Tensor:
        """Multiply x (r, l, d) with the weights of the merge."""
        if self.factor is None:
            return x
        factor = of_route(self.factor, run.route)
        factor = factor[run.rows.items] if len(factor) > 1 else factor
        return (run.rows.split(x) * factor[:, None, None]).flatten(0, 1)

    def _factor(self) -> Tensor | None:  # (k, b or 1, d or 1)
        if self.scan.weights is not None:
            return self.part.channels(self.scan.weights).to(self.dtype) * self.scan.y_scale
        return None if self.scan.y_scale == 1 else self.scan.u.new_full((1, 1, 1), self.scan.y_scale, dtype=self.dtype)


def is_constant(coefficient: Tensor) -> bool:
    """Whether a B or C is the same for all tokens."""
    return all(size == 1 for size in coefficient.shape[1:-2])


def of_route(x: Tensor, route: int) -> Tensor:
    """What a route has of a tensor with a route axis, which is 1 where all share it."""
    return x[route if x.shape[0] > 1 else 0]


def flat(scan: Scan, x: Tensor) -> Tensor:
    """(k, b, *space, *) -> (k, b, v, *)."""
    return x.flatten(2, 1 + len(scan.space))

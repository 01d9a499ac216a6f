"""Routes: in which order a scan visits the voxels of a volume, and where its state starts anew.

A route is written as a string, slow axis to fast with a sign each: "zyx" is the order of memory, "-z-y-x" the same
backwards. One signed axis, "+x" or "-y", is the family of lines along it. An index table is any other order. Behind "/"
stands where the state starts anew: "zyx/8" every 8 tokens, "zyx/@" where offsets say.

Either way a route is a sequence of tokens, each a voxel, cut into pieces; every piece is a scan of its own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

AXES = {1: "x", 2: "yx", 3: "zyx"}  # by number of spatial axes, in the order of memory
TABLE = "table"
OFFSETS = "@"
_STEP = re.compile(r"([+-]?)([zyx])")


@dataclass(frozen=True, slots=True)
class Order:
    """The tokens of one route and the pieces they are cut into.

    Token t is the voxel start + i * strides[0] + j * strides[1] + k * strides[2], where i, j, k are the digits of t to
    the bases counts; or what `table` says.

    Args:
        counts: How many steps the slow, the middle and the fast loop make.
        strides: How many voxels a step of each goes ahead.
        start: The voxel of token 0.
        length: How many tokens there are.
        run: A piece ends at every multiple of `run` tokens,
        window: and inside a run after every `window` of its tokens.
        table: (b, t) or (1, t), int64, the voxel of each token, -1 for none; then the loops say nothing.
        offsets: (s + 1,), int64, where the pieces begin and end; then `run` and `window` say nothing.
    """

    counts: tuple[int, int, int]
    strides: tuple[int, int, int]
    start: int
    length: int
    run: int
    window: int
    table: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def pieces(self) -> int:
        """How many pieces a batch item has: s."""
        if self.offsets is not None:
            return self.offsets.shape[0] - 1
        return (self.length // self.run) * self.pieces_of_a_run if self.run else 1  # no tokens are one empty piece

    @property
    def pieces_of_a_run(self) -> int:
        """How many pieces lie between two multiples of `run`."""
        return (self.run + self.window - 1) // self.window

    @property
    def is_identity(self) -> bool:
        """Whether token t is voxel t."""
        return self.table is None and self.start == 0 and all(
            stride == prod(self.counts[i + 1 :]) or self.counts[i] == 1 for i, stride in enumerate(self.strides)
        )  # fmt: skip

    def check_values(self, voxels: int) -> None:
        """Refuse a table and offsets that make no sense in a volume of so many voxels."""
        if self.offsets is not None:
            ends: list[int] = self.offsets.tolist()
            is_short = ends[-1] != self.length and (self.table is None or ends[-1] > self.length)
            if ends[0] != 0 or is_short or ends != sorted(ends):
                most = f"the number of tokens, {self.length}"
                raise ValueError(f"offsets (cu_seqlens or reset) must rise from 0 to {most}; got {ends}")
        if self.table is not None and self.table.numel():
            low, high = (int(x) for x in self.table.aminmax())
            if low < -1 or high >= voxels:
                raise ValueError(f"a table names voxels from 0 to {voxels - 1}, or -1; got {low} to {high}")

    def voxel(self, token: int) -> int:
        """The voxel of a token of a route without a table."""
        _, middle, fast = self.counts
        digits = token // (fast * middle), token // fast % middle, token % fast
        return self.start + sum(digit * stride for digit, stride in zip(digits, self.strides, strict=True))

    def bounds(self) -> Iterator[tuple[int, int]]:
        """The first token and the end of every piece."""
        begins, lengths = self.cuts(torch.device("cpu"))
        yield from zip(begins.tolist(), (begins + lengths).tolist(), strict=True)

    def cuts(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first token and the length of every piece: (s,) each."""
        if self.offsets is not None:
            return self.offsets[:-1], self.offsets.diff()
        if not self.run:
            return (torch.zeros(1, dtype=torch.int64, device=device),) * 2
        runs = torch.arange(0, self.length, self.run, device=device)
        inside = torch.arange(0, self.run, self.window, device=device)
        lengths = (self.run - inside).clamp(max=self.window)
        return (runs[:, None] + inside).flatten(), lengths.repeat(len(runs))

    def voxels(self, device: torch.device) -> Tensor:
        """The voxel of every token, -1 for none: (1, t), or (b, t) where each batch item has a table of its own."""
        if self.table is not None:
            return self.table
        i, j, k = (torch.arange(n, device=device) * s for n, s in zip(self.counts, self.strides, strict=True))
        return (self.start + i[:, None, None] + j[:, None] + k).reshape(1, -1)


def parse(route: str, dims: int) -> str:
    """Write a route with all its signs, or refuse it.

    Args:
        route: As a user writes it, without resets.
        dims: How many spatial axes the volume has.
    """
    names, steps = AXES[dims], _STEP.findall(route)
    axes = [axis for _, axis in steps]
    is_whole = "".join(sign + axis for sign, axis in steps) == route
    if not is_whole or not axes or len(set(axes)) < len(axes) or len(axes) not in (1, dims) or set(axes) - set(names):
        raise ValueError(
            f"a route over {dims} axes names each of {', '.join(names)} once, slow to fast, like {names!r} or "
            f"{'-'.join(['', *names])!r}, or one of them, like '+x', for lines along it; got {route!r}"
        )
    return "".join((sign or "+") + axis for sign, axis in steps)


def orders(routes: str, space: Sequence[int], table: Tensor | None, offsets: Tensor | None) -> list[Order]:
    """The orders of routes as the torch operators get them.

    Args:
        routes: What `parse` gives, or "table", each with its "/" and resets, joined by commas.
        space: The extents of the volume.
        table: (routes that are tables, b or 1, t).
        offsets: (routes with "@", s + 1).
    """
    tables, cuts = iter(() if table is None else table), iter(() if offsets is None else offsets)
    found = []
    for route in routes.split(","):
        name, _, reset = route.partition("/")
        rows = next(tables) if name == TABLE else None
        counts, strides, start, run = _loops(name, space) if rows is None else ((1, 1, 1), (0, 0, 0), 0, rows.shape[1])
        length = prod(counts) if rows is None else rows.shape[1]
        window = int(reset) if reset not in ("", OFFSETS) else run
        cut = next(cuts) if reset == OFFSETS else None
        found.append(Order(counts, strides, start, length, run, window, rows, cut))
    return found


def _loops(route: str, space: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int, int], int, int]:
    names = AXES[len(space)]
    steps = _STEP.findall(route)
    others = [("+", axis) for axis in names if len(steps) == 1 and axis != steps[0][1]]
    counts, strides, start = [1, 1, 1], [0, 0, 0], 0
    for place, (sign, axis) in enumerate(reversed(others + steps)):
        i = names.index(axis)
        stride = prod(space[i + 1 :])
        counts[2 - place], strides[2 - place] = space[i], -stride if sign == "-" else stride
        start += (space[i] - 1) * stride if sign == "-" else 0
    run = counts[2] if len(steps) == 1 else prod(counts)
    return (counts[0], counts[1], counts[2]), (strides[0], strides[1], strides[2]), start, run

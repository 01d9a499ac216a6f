"""The pieces of a route as rows of tokens, and how these are read from volumes and added to them.

Shapes, beside those of `problem.py`: p pieces of one length, r rows, the pieces of some batch items, l tokens of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.routes import Order
from umamba_seg.kernels.torch.blocks import Block


@dataclass(frozen=True, slots=True)
class Stretch:
    """Pieces that lie in memory one behind the other, forward or backward: read as views.

    Args:
        pieces: The numbers of the pieces on the route: (p,).
        begins: The first token of each on the route: (p,).
        length: How many tokens each has: l.
        start: The first voxel in memory.
        is_reversed: Whether the last voxel is the first token.
    """

    pieces: Tensor
    begins: Tensor
    length: int
    start: int
    is_reversed: bool

    def read(self, x: Tensor, block: Block) -> Tensor:
        """The tokens of a volume (b, v, *) in the order of the route: (r, l, *)."""
        x = self._view(x, block)
        return (x.flip(1, 2) if self.is_reversed else x).flatten(0, 1)

    def add(self, total: Tensor, block: Block, x: Tensor) -> None:
        """Add x (r, l, *) to a volume where `read` would find it."""
        x = block.rows.split(x)
        self._view(total, block).add_(x.flip(1, 2) if self.is_reversed else x)

    def hide(self, x: Tensor, block: Block) -> Tensor:
        """Put zero into x (r, l, *) where no token is."""
        return x

    def _view(self, x: Tensor, block: Block) -> Tensor:  # (b, v, *) -> (b, p, l, *)
        count = len(self.pieces)
        x = x[block.rows.items, self.start : self.start + count * self.length].unflatten(1, (count, self.length))
        if self.is_reversed:
            return x[:, _mirrored(block.rows.pieces, count), _mirrored(block.tokens, self.length)]
        return x[:, block.rows.pieces, block.tokens]


@dataclass(frozen=True, slots=True)
class Table:
    """Pieces that lie anywhere.

    Args:
        pieces: The numbers of the pieces on the route: (p,).
        begins: The first token of each on the route: (p,).
        voxels: (b or 1, p, l), -1 where no token is.
        is_full: Whether there is a token everywhere.
    """

    pieces: Tensor
    begins: Tensor
    voxels: Tensor
    is_full: bool

    @property
    def length(self) -> int:
        """How many tokens each has: l."""
        return self.voxels.shape[2]

    def read(self, x: Tensor, block: Block) -> Tensor:
        """The tokens of a volume (b, v, *) in the order of the route, zero where none is: (r, l, *)."""
        x, index = x[block.rows.items], self._of(block).flatten(1).clamp(min=0)
        if len(index) == 1:
            x = x.index_select(1, index[0])
        else:
            x = torch.stack([item.index_select(0, voxels) for item, voxels in zip(x, index, strict=True)])
        return self.hide(x.reshape(-1, block.length, *x.shape[2:]), block)

    def add(self, total: Tensor, block: Block, x: Tensor) -> None:
        """Add x (r, l, *) to a volume where `read` would find it."""
        x, index = block.rows.split(self.hide(x, block)).flatten(1, 2), self._of(block).flatten(1).clamp(min=0)
        for item, voxels, values in zip(total[block.rows.items], index.expand(len(x), -1), x, strict=True):
            if item.is_cpu:
                item.index_add_(0, voxels, values)
            else:  # there, index_add_ sums what comes twice in any order
                item.index_put_((voxels,), values, accumulate=True)

    def hide(self, x: Tensor, block: Block) -> Tensor:
        """Put zero into x (r, l, *) where no token is."""
        if self.is_full:
            return x
        absent = (self._of(block) < 0).expand(block.rows.shape[0], -1, -1).flatten(0, 1)
        return x.masked_fill(absent.reshape(*absent.shape, *(1 for _ in x.shape[2:])), 0)

    def shifted(self) -> "Table":
        """The same pieces, each token in the place of the next."""
        places = torch.arange(self.length, device=self.voxels.device).expand_as(self.voxels)
        last = places.masked_fill(self.voxels < 0, -1).cummax(2).values
        before = F.pad(last[..., :-1], (1, 0), value=-1)[..., : self.length]  # where the token before each one is
        voxels = self.voxels.gather(2, before.clamp(min=0)).masked_fill(before < 0, -1)
        return replace(self, voxels=voxels, is_full=False)

    def closed(self) -> "Table":
        """The same pieces, those tokens last that are not there."""
        if self.is_full:
            return self
        order = (self.voxels < 0).long().argsort(dim=2, stable=True)
        return replace(self, voxels=self.voxels.gather(2, order))

    def _of(self, block: Block) -> Tensor:  # (b or 1, p, l)
        items = block.rows.items if self.voxels.shape[0] > 1 else slice(None)
        return self.voxels[items, block.rows.pieces, block.tokens]


def strands(
    order: Order, space: tuple[int, ...], device: torch.device, *, is_shifted: bool
) -> Iterator[tuple[Stretch | Table, Stretch | Table]]:
    """All pieces of a route; those of about the same length are scanned side by side.

    Args:
        order: The route.
        space: The extents of the volume.
        device: Where.
        is_shifted: Whether a token has the C of the one before it.

    Yields:
        The pieces, and where to find the C of their tokens.
    """
    is_cut_evenly = order.run == order.length or order.run % min(order.window, order.run) == 0
    if order.offsets is None and is_cut_evenly and not is_shifted and (order.is_identity or _is_reversal(order)):
        yield from ((stretch, stretch) for stretch in _stretches(order, device))
    else:
        yield from ((table, table.shifted() if is_shifted else table) for table in _tables(order, space, device))


def _stretches(order: Order, device: torch.device) -> Iterator[Stretch]:
    window = min(order.window, order.run)
    full = order.length // window if window else 0
    for first, end, length in ((0, full, window), (full, order.pieces, order.length - full * window)):
        if first < end:
            pieces, count = torch.arange(first, end, device=device), (end - first) * length
            start = first * window if order.is_identity else order.length - first * window - count
            yield Stretch(pieces, pieces * window, length, start, not order.is_identity)


def _tables(order: Order, space: tuple[int, ...], device: torch.device) -> Iterator[Table]:
    begins, lengths = order.cuts(device)
    if not prod(space):
        lengths = torch.zeros_like(lengths)
    voxels = F.pad(order.voxels(device), (0, 1), value=-1)
    size = torch.frexp((lengths - 1).clamp(min=0).double()).exponent  # of one size, none is twice as long as another
    for which in size.unique():
        pieces = (size == which).nonzero()[:, 0]
        steps = torch.arange(int(lengths[pieces].max()), device=device)
        is_inside = steps < lengths[pieces, None]
        table = voxels[:, (begins[pieces, None] + steps).masked_fill(~is_inside, -1)]
        yield Table(pieces, begins[pieces], table, bool((table >= 0).all()))


def _is_reversal(order: Order) -> bool:
    """Whether token t is voxel t from behind."""
    return order.table is None and order.start == order.length - 1 and all(
        stride == -prod(order.counts[i + 1 :]) or order.counts[i] == 1 for i, stride in enumerate(order.strides)
    )  # fmt: skip


def _mirrored(part: slice, size: int) -> slice:
    return slice(size - part.stop, size - part.start)

"""How tokens in rows are cut into blocks, and the tokens of a block into chunks that run side by side.

Shapes, beside those of `problem.py`: p pieces of one length, r rows, the pieces of some batch items, l tokens of each;
t steps, c chunks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import CHECKPOINT_STEP

CPU_BLOCK = 2**19  # state updates of a block, 2 MiB an array: half of it ran slower, twice as much no faster
GPU_BLOCK = 2**22  # not measured: there launches count and not caches
ONE_CHUNK = 16  # so many tokens are not cut any further


@dataclass(frozen=True, slots=True)
class Rows:
    """Some pieces of some batch items."""

    items: slice
    pieces: slice

    @property
    def shape(self) -> tuple[int, int]:
        """How many items and how many pieces: (b, p)."""
        return self.items.stop - self.items.start, self.pieces.stop - self.pieces.start

    def split(self, x: Tensor) -> Tensor:
        """(r, *) -> (b, p, *)."""
        return x.unflatten(0, self.shape)

    def take(self, x: Tensor, places: Tensor) -> Tensor:
        """What x (b, *, ...) has for each row at the place of its piece: (r, ...)."""
        return x[self.items][:, places].flatten(0, 1)

    def put(self, target: Tensor, places: Tensor, x: Tensor) -> None:
        """Put x (r, ...) where `take` would find it."""
        target[self.items][:, places] = self.split(x)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive tokens of rows that are scanned at once.

    Args:
        rows: Whose tokens.
        tokens: Which of them, counted from the start of each piece.
        steps: t, into which with `chunks` (c) the tokens are cut; t * c may exceed them.
    """

    rows: Rows
    tokens: slice
    steps: int
    chunks: int

    @property
    def length(self) -> int:
        """How many tokens of each row there are."""
        return int(self.tokens.stop - self.tokens.start)

    def fold(self, x: Tensor) -> Tensor:
        """(r, l, *) -> (t, r, c, *), filled up with zeros: with dt = 0 and no input, a token changes no state."""
        if missing := self.steps * self.chunks - self.length:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
        return x.reshape(x.shape[0], self.chunks, self.steps, *x.shape[2:]).movedim(2, 0).contiguous()

    def unfold(self, x: Tensor) -> Tensor:
        """(t, r, c, *) -> (r, l, *)."""
        return x.movedim(0, 2).flatten(1, 2)[:, : self.length]


def blocks(shape: tuple[int, int, int], width: int, device: torch.device) -> Iterator[tuple[Rows, list[Block]]]:
    """Rows that are scanned side by side, and the blocks of their tokens in order.

    Args:
        shape: Batch items, pieces, tokens of a piece.
        width: State updates of a token: d * n.
        device: Where.
    """
    size = block_size(device)
    batch, pieces, length = shape
    most = _tokens(width, size)
    for rows in _rows(batch, pieces, max(1, size // max(1, min(most, length) * width))):
        step = math.prod(rows.shape) * width
        yield rows, [_block(rows, start, min(start + most, length), step, size) for start in range(0, length, most)]


def block_size(device: torch.device) -> int:
    """How many state updates a block has at most, unless one row of the fewest tokens has more."""
    return CPU_BLOCK if device.type == "cpu" else GPU_BLOCK


def _tokens(width: int, size: int) -> int:
    """How many tokens a block has at most: only where it begins a state can be kept."""
    tokens = max(size // 2**10, CHECKPOINT_STEP)
    while tokens > CHECKPOINT_STEP and tokens * width > size:
        tokens //= 2
    return tokens


def _rows(batch: int, pieces: int, most: int) -> Iterator[Rows]:
    items = max(1, most // max(1, pieces))
    for item in range(0, batch, items):
        for piece in range(0, pieces, most):
            yield Rows(slice(item, min(item + items, batch)), slice(piece, min(piece + most, pieces)))


def _block(rows: Rows, start: int, end: int, step: int, size: int) -> Block:
    """One block; a token of all its rows has `step` state updates.

    Chunks cost every update a second time and save calls, of which 2 (steps + chunks) are left.
    """
    length = end - start
    chunks = 1 if length <= ONE_CHUNK or step >= size // 2**7 else round(math.sqrt(length))
    return Block(rows, slice(start, end), -(-length // chunks), chunks)

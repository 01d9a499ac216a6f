"""How a scan is cut into blocks, and the tokens of a block into chunks that run side by side.

Shapes, beside those of `problem.py`: r rows, the batch items of a block, t steps, k chunks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.problem import Scan

CPU_BLOCK = 2**19  # state updates of a block, 2 MiB an array: half of it ran slower, twice as much no faster
GPU_BLOCK = 2**22  # not measured: there launches count and not caches
MIN_TOKENS = 16  # of a block, unless the sequence ends before


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive tokens of one sequence, or of several batch items, that are scanned at once.

    Args:
        rows: Which batch items.
        sequences: Which states are theirs.
        tokens: Which tokens of them.
        slot: Where the state before the block is saved.
        steps: t, into which with `chunks` (k) the tokens are cut; t * k may exceed them.
        is_reversed: Whether the scan walks against the order of the tokens.
    """

    rows: slice
    sequences: slice
    tokens: slice
    slot: int
    steps: int
    chunks: int
    is_reversed: bool

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return int(self.tokens.stop - self.tokens.start)

    def read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The block's tokens of x (b, l, *) in the order of the scan: (r, l, *)."""
        x = x[self.rows, self.tokens].to(dtype)
        return x.flip(1) if self.is_reversed else x

    def write(self, target: Tensor, x: Tensor) -> None:
        """Put x (r, l, *) where `read` would find it."""
        target[self.rows, self.tokens] = x.flip(1) if self.is_reversed else x

    def fold(self, x: Tensor) -> Tensor:
        """(r, l, *) -> (t, r, k, *), filled up with zeros: with dt = 0 and no input, a token changes no state."""
        if missing := self.steps * self.chunks - self.length:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
        return x.reshape(x.shape[0], self.chunks, self.steps, *x.shape[2:]).movedim(2, 0).contiguous()

    def unfold(self, x: Tensor) -> Tensor:
        """(t, r, k, *) -> (r, l, *)."""
        return x.movedim(0, 2).flatten(1, 2)[:, : self.length]


def blocks(scan: Scan) -> Iterator[Block]:
    """All blocks of a scan; those of one sequence come in the order of the scan."""
    most = tokens_of_a_block(scan)
    state = scan.channels * scan.states
    for rows, sequences, (begin, end), slot in _strands(scan):
        starts = range(begin, end, most)
        step = (rows.stop - rows.start) * state
        for i, start in enumerate(reversed(starts) if scan.reverse else starts):
            tokens = slice(start, min(start + most, end))
            chunks = _chunks(tokens.stop - tokens.start, step, _block_size(scan))
            steps = -(-(tokens.stop - tokens.start) // chunks)
            yield Block(rows, sequences, tokens, slot + i, steps, chunks, scan.reverse)


def tokens_of_a_block(scan: Scan) -> int:
    """How many tokens a block has at most; from shapes alone, so that it is known while a graph is traced."""
    size = _block_size(scan)
    tokens = size // 2**10
    while tokens > MIN_TOKENS and tokens * scan.channels * scan.states > size:
        tokens //= 2
    return tokens


def slots(scan: Scan) -> int:
    """How many states before blocks there are for a batch item, at most where `cu_seqlens` sets the lengths."""
    tokens = tokens_of_a_block(scan)
    if scan.cu_seqlens is None:
        return (scan.length + tokens - 1) // tokens
    return scan.length // tokens + scan.sequences


def _strands(scan: Scan) -> Iterator[tuple[slice, slice, tuple[int, int], int]]:
    """What can be scanned by itself: rows, their sequences, first token and end, first slot."""
    tokens = tokens_of_a_block(scan)
    if scan.cu_seqlens is not None:
        slot = 0
        for q, (begin, end) in enumerate(pairwise(scan.packed_ends())):
            yield slice(0, 1), slice(q, q + 1), (begin, end), slot
            slot += (end - begin + tokens - 1) // tokens
        return
    row = min(tokens, scan.length) * scan.channels * scan.states
    rows = max(1, _block_size(scan) // max(1, row))
    for first in range(0, scan.batch, rows):
        span = slice(first, min(first + rows, scan.batch))
        yield span, span, (0, scan.length), 0


def _chunks(length: int, step: int, size: int) -> int:
    """How many chunks `length` tokens are cut into, when one token of each row has `step` state updates.

    Chunks cost every update a second time and save calls, of which 2 (steps + chunks) are left.
    """
    if length <= MIN_TOKENS or step >= size // 2**7:
        return 1
    return round(math.sqrt(length))


def _block_size(scan: Scan) -> int:
    return CPU_BLOCK if scan.u.device.type == "cpu" else GPU_BLOCK

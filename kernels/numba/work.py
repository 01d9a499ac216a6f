"""How a scan is cut into items of work, and our own threads that do them.

Threads live as long as a call: nothing is left behind that a fork could break, and torch's number of threads is obeyed.
"""

import ctypes
import math
import threading
from collections.abc import Iterable, Sequence
from itertools import product

import torch

from umamba_seg.kernels.numba.compiler import Kernel
from umamba_seg.kernels.problem import Scan

UPDATES_OF_A_THREAD = 2**20  # states times tokens, a third of a millisecond; a thread is started in a tenth of that
MOST_RUNS = 16  # of the backward pass of one route, each with sums of its own
MOST_PARTS = 8

Span = tuple[int, int]


def threads_for(scan: Scan, tokens: int) -> int:
    """How many threads a route of so many tokens is worth."""
    return threads_worth(scan.batch * tokens * scan.channels * scan.states)


def threads_worth(updates: int) -> int:
    """How many threads so much work is worth."""
    return max(1, min(torch.get_num_threads(), updates // UPDATES_OF_A_THREAD))


def cut(total: int, pieces: int) -> list[Span]:
    """0 to total in so many spans that differ by 1 at most."""
    return [(total * i // pieces, total * (i + 1) // pieces) for i in range(pieces)]


def forward_items(sequences: int, groups: int, blocks: int, threads: int) -> list[tuple[int, ...]]:
    """First and last sequence, group and block of each item: few items, so that rows are read whole."""
    runs = threads if sequences >= 4 * threads else sequences
    pieces = threads // math.gcd(threads, runs) if runs else 1
    of_groups = cut(groups, min(groups, pieces) if groups > 1 else 1)
    of_blocks = cut(blocks, min(blocks, pieces) if groups == 1 else 1)
    return [(*a, *b, *c) for a, b, c in product(cut(sequences, runs), of_groups, of_blocks)]


def runs_of(pieces: int, batch: int, *, is_whole: bool = False) -> list[Span]:
    """The sequences of each run of a backward pass, batch item by batch item: by shape alone.

    Args:
        pieces: How many sequences a batch item has.
        batch: How many batch items there are.
        is_whole: Whether each batch item must be one run.
    """
    runs = 1 if is_whole else max(1, min(pieces, MOST_RUNS // max(batch, 1)))
    spans = cut(pieces, runs)
    return [(item * pieces + first, item * pieces + last) for item in range(batch) for first, last in spans]


def parts_for(runs: int, groups: int, blocks: int) -> int:
    """How many parts the blocks are cut into in a backward pass, a power of two: by shape alone."""
    if groups > 1 or runs >= MOST_RUNS:
        return 1
    return 1 << (min(blocks, MOST_PARTS).bit_length() - 1)


def branches_for(runs: int, parts: int, threads: int) -> int:
    """How many branches of the tournament of parts are items of their own, a power of two."""
    wanted = 1
    while wanted < parts and wanted * runs < threads:
        wanted *= 2
    return wanted


def run(kernel: Kernel, frame: Sequence[int], items: Iterable[Sequence[int]], scratch: int, threads: int) -> None:
    """Do all items, each with scratch memory of so many bytes."""
    told = (ctypes.c_int64 * len(frame))(*frame)
    queue = iter([(ctypes.c_int64 * len(item))(*item) for item in items])
    failures: list[BaseException] = []

    def work() -> None:
        memory = torch.empty(scratch + 128, dtype=torch.uint8)
        address = (memory.data_ptr() + 63) & ~63
        try:
            for item in queue:  # a list's iterator gives each item to one thread
                kernel(ctypes.addressof(told), ctypes.addressof(item), address)
        except BaseException as fault:  # told to the caller below
            failures.append(fault)

    others = [threading.Thread(target=work) for _ in range(threads - 1)]
    for other in others:
        other.start()
    work()
    for other in others:
        other.join()
    if failures:
        raise failures[0]

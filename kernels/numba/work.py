"""How a scan is cut into items of work, and our own threads that do them.

Threads live as long as a call: nothing is left behind that a fork could break, and torch's number of threads is obeyed.
"""

import ctypes
import math
import os
import threading
from collections.abc import Callable, Sequence
from itertools import product

import torch

from umamba_seg.kernels.numba.compiler import Kernel
from umamba_seg.kernels.numba.scratch import CHUNKS, PAGE, PROGRESS, SHARE, SLOTS, BackwardSlot, ForwardSlot, ring_head
from umamba_seg.kernels.problem import Scan

UPDATES_OF_A_THREAD = 2**20  # states times tokens, a third of a millisecond; a thread is started in a tenth of that
MOST_RUNS = 16  # of the backward pass of one route, each with sums of its own
MOST_PARTS = 8
LEAST_MEMBERS = 3  # of a team: what they tell each other takes half of what a second one saves

Span = tuple[int, int]
Slot = Callable[[int, int], ForwardSlot | BackwardSlot]


def chunk_of(states: int, most: int) -> int:
    """Into chunks of how many states they are cut: as few in all as can be, and then as large."""
    sizes = [size for size in CHUNKS if size <= most]
    return min(sizes, key=lambda size: (-(-states // size) * size, -size))


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


class Teams:
    """The items of work of teams, and the memory that each team shares; see `team`.

    Args:
        blocks: What each team does: numbers that its members are told first.
        members: How many each has.
        states: How many they share out.
        slot: Where things lie in a slot of the ring.
    """

    def __init__(self, blocks: Sequence[tuple[int, ...]], members: int, states: int, slot: Slot) -> None:
        shares = states // SHARE
        size = ring_head(shares) + SLOTS * slot(0, shares).end
        memory = torch.empty(len(blocks) * size + PAGE, dtype=torch.uint8)
        rings = memory[-memory.data_ptr() % PAGE :][: len(blocks) * size].view(len(blocks), size)
        self._progress = rings[:, : shares * PROGRESS].zero_()
        self.items = [
            (*block, member, members, *span, ring.data_ptr())
            for block, ring in zip(blocks, rings, strict=True)
            for member, span in enumerate(cut(shares, members))
        ]

    def release(self) -> None:
        """Let nobody wait for anybody any more: what they compute is lost."""
        self._progress.fill_(0x7F)


def members_for(blocks: int, states: int, threads: int) -> int:
    """How many threads do a block of a sequence together: 1 unless a team is worth its while.

    No more than there are processors for, since they wait for each other, nor than make a member's work less.

    Args:
        blocks: How many there are, all to be done at once.
        states: Of a channel, filled up to whole chunks.
        threads: How many there may be in all.
    """
    shares = states // SHARE
    most = min(threads, processors()) // max(blocks, 1)
    if most < LEAST_MEMBERS:
        return 1
    of_a_member = -(-shares // min(most, shares))
    members = -(-shares // of_a_member)
    return members if members >= LEAST_MEMBERS else 1


def processors() -> int:
    """How many processors there are for us."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    kernel: Kernel, frame: Sequence[int], items: Sequence[Sequence[int]], scratch: int, threads: int,
    teams: Teams | None = None,
) -> None:  # fmt: skip
    """Do all items, each with scratch memory of so many bytes; those of teams all at once."""
    told = (ctypes.c_int64 * len(frame))(*frame)
    queue = iter([(ctypes.c_int64 * len(item))(*item) for item in items])
    failures: list[BaseException] = []

    def give_up(fault: BaseException) -> None:
        failures.append(fault)
        if teams is not None:
            teams.release()

    def work() -> None:
        try:
            memory = torch.empty(scratch + PAGE, dtype=torch.uint8)
            address = memory.data_ptr() + -memory.data_ptr() % PAGE
            for item in queue:  # a list's iterator gives each item to one thread
                kernel(ctypes.addressof(told), ctypes.addressof(item), address)
        except BaseException as fault:  # told to the caller below
            give_up(fault)

    others = [threading.Thread(target=work) for _ in range(threads - 1)]
    try:
        for other in others:
            other.start()
        work()
    except BaseException as fault:  # there may be no more threads
        give_up(fault)
    for other in others:
        if other.ident is not None:  # it was started
            other.join()
    if failures:
        raise failures[0]

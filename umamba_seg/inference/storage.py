"""Where the arrays of a case lie: in memory, or in nameless files where a budget does not allow that.

A file without a name is gone with its process, however that ends. What lies there is the same and slower.
"""

import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

GB = 2**30
MOST_BY_DEFAULT = 4 * GB
SLABS = ((2, 8), (1, 8), (1, 4), (1, 2))  # how many may wait, and their rows: fewer rows make blocks less certain


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a case needs, by what they are for; `row` is one row of a slab that waits to be decided."""

    sums: int
    row: int
    image: int
    labels: int


@dataclass(slots=True)
class Storage:
    """Decides for one case, within a budget.

    Args:
        folder: Where nameless files may be.
        on_disk: Which arrays lie there, in the order in which they had to go.
        waiting: How many slabs may wait to be decided.
        rows: How many rows a slab has.
    """

    folder: Path
    on_disk: tuple[str, ...] = ()
    waiting: int = 2
    rows: int = 8
    _maps: list[Any] = field(default_factory=list)  # numpy does not tell of the map within a memmap

    @classmethod
    def within(cls, budget: int, need: Need, folder: Path) -> "Storage":
        """What must give way goes in this order: slabs that wait, their rows, the image, the labels, the sums."""
        held = {"image": need.image, "labels": need.labels, "sums": need.sums}
        waiting, rows = next(
            (way for way in SLABS if sum(held.values()) + slabs(need, *way) <= budget),
            SLABS[-1],
        )
        on_disk: list[str] = []
        for name in held:
            if sum(held[n] for n in held if n not in on_disk) + slabs(need, waiting, rows) > budget:
                on_disk.append(name)
        return cls(folder, tuple(on_disk), waiting, rows)

    def zeros(self, what: str, shape: Sequence[int], kind: Any) -> np.ndarray:
        """An array of zeros for `image`, `labels` or `sums`."""
        if what not in self.on_disk or not prod(shape):
            return np.zeros(shape, kind)
        with tempfile.TemporaryFile(dir=self.folder, prefix=".umamba-") as file:
            array = np.memmap(file, dtype=kind, mode="w+", shape=tuple(shape))
        self._maps.append(array)
        return array

    def give_way(self) -> None:
        """Let the system take back what it holds in memory of arrays that are files."""
        for array in self._maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                array._mmap.madvise(mmap.MADV_DONTNEED)


def slabs(need: Need, waiting: int, rows: int) -> int:
    """Bytes of those that wait and of the one that is being made, each with the last row of the one before."""
    return (waiting + 1) * (rows + 1) * need.row


def default_budget() -> int:
    """Half of what is free, at most 4 GB."""
    import psutil

    return int(min(psutil.virtual_memory().available / 2, MOST_BY_DEFAULT))

"""Where the tiles of a sliding window lie, and how much each voxel of one counts: as nnU-Net has it, to the bit."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def starts(size: int, tile: int, step: float) -> list[int]:
    """First voxels of the tiles along an axis, as nnU-Net spreads them: at most `step` tiles apart, the ends met."""
    count = math.ceil((size - tile) / (tile * step)) + 1
    apart = (size - tile) / (count - 1) if count > 1 else 0.0
    return [int(np.round(apart * index)) for index in range(count)]


def padding(shape: Sequence[int], tile: Sequence[int]) -> list[tuple[int, int]]:
    """Voxels of nothing before and behind each axis, so that a tile fits."""
    missing = [max(t - s, 0) for s, t in zip(shape, tile, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]


@lru_cache(maxsize=4)  # the same for every image
def importance(tile: tuple[int, ...]) -> np.ndarray:
    """How much each voxel of a tile counts: a Gaussian of an eighth of the tile, 10 in the middle, in half precision.

    A Gaussian filter of one voxel is the product of its axes; nnU-Net filters the whole tile, which gives the same.
    """
    product = np.ones(())
    for size in tile:
        product = product[..., None] * _gaussian(size)
    half = (product / (product.max() / 10)).astype(np.float32).astype(np.float16)  # torch rounds twice
    half[half == 0] = half[half > 0].min()  # a voxel that no tile counts would divide by zero
    half.flags.writeable = False
    return half


def _gaussian(size: int) -> np.ndarray:
    """A line with one voxel in its middle, filtered as scipy does: four standard deviations far, with a sum of one."""
    reach = int(4 * size / 8 + 0.5)
    far = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 / (size / 8) ** 2 * far**2)
    line, middle = np.zeros(size + 2 * reach), size // 2 + reach
    line[middle - reach : middle + reach + 1] = weights / weights.sum()
    return line[reach : reach + size]


@dataclass(frozen=True, slots=True)
class Window:
    """The tiles over one grid.

    Args:
        grid: Size of the grid, padded.
        tile: Size of a tile along the same axes.
        step: Distance of tiles in parts of one.
        is_flat: Whether the network is two-dimensional, so that every slice has tiles of its own.
    """

    grid: tuple[int, int, int]
    tile: tuple[int, int, int]
    step: float
    is_flat: bool = False

    def rows(self) -> list[int]:
        """Starts along the first axis."""
        return list(range(self.grid[0])) if self.is_flat else starts(self.grid[0], self.tile[0], self.step)

    def columns(self) -> list[tuple[int, int]]:
        """Starts along the other two, the last fastest."""
        y, x = (starts(self.grid[axis], self.tile[axis], self.step) for axis in (1, 2))
        return list(itertools.product(y, x))

    def count(self) -> int:
        """How many tiles there are."""
        return len(self.rows()) * len(self.columns())

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        columns = self.columns()
        return ((z, y, x) for z in self.rows() for y, x in columns)

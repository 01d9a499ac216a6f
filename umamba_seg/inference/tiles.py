"""Where the tiles of a sliding window lie, how much each voxel of one counts, and the rolling sums of all.

Tiles are visited with the first axis outermost. Once all that start in a row are done, the rows before the next start
are final: they are divided, handed on, and their place is used again. So what is held has the height of a tile,
however long the image is.

Letters: c classes; z, y, x the grid of the network.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy.ndimage import gaussian_filter1d

from umamba_seg.inference.half import from_half, to_half

LARGEST_HALF = np.float32(65520)  # from here on a half is infinite
ROWS_OF_FLAT_TILES = 8  # tiles of one slice are summed so many slices at a time

Make = Callable[[tuple[int, ...], type[np.generic]], np.ndarray]


def starts(size: int, tile: int, step: float) -> list[int]:
    """First voxels of the tiles along an axis, as nnU-Net spreads them: at most `step` tiles apart, the ends met."""
    count = math.ceil((size - tile) / (tile * step)) + 1
    apart = (size - tile) / (count - 1) if count > 1 else 0.0
    return [int(np.round(apart * index)) for index in range(count)]


def padding(shape: Sequence[int], tile: Sequence[int]) -> list[tuple[int, int]]:
    """Voxels of nothing before and behind each axis, so that a tile fits."""
    missing = [max(t - s, 0) for s, t in zip(shape, tile, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]


def importance(tile: Sequence[int]) -> np.ndarray:
    """How much each voxel of a tile counts: a Gaussian of an eighth of the tile, 10 in the middle, in half precision.

    A Gaussian filter of one voxel is the product of its axes; nnU-Net filters the whole tile, which gives the same.
    """
    product = np.ones(())
    for size in tile:
        line = np.zeros(size)
        line[size // 2] = 1
        product = product[..., None] * gaussian_filter1d(line, size / 8, mode="constant")
    half = (product / (product.max() / 10)).astype(np.float32).astype(np.float16)  # torch rounds twice
    half[half == 0] = half[half > 0].min()  # a voxel that no tile counts would divide by zero
    return half


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
        return list(itertools.product(*(starts(self.grid[i], self.tile[i], self.step) for i in (1, 2))))

    def count(self) -> int:
        """How many tiles there are."""
        return len(self.rows()) * len(self.columns())

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        columns = self.columns()
        return ((z, y, x) for z in self.rows() for y, x in columns)


class Sums:
    """Sums of weighted tiles in half precision, rounded after every addition as nnU-Net's are.

    Args:
        window: The tiles.
        classes: c.
        folds: How many networks there are; each has sums of its own, since their means are averaged.
        make: Makes an array of zeros; a place on disk serves too.
    """

    kind: type[np.generic] = np.uint16

    def __init__(self, window: Window, classes: int, folds: int, make: Make) -> None:
        self.height = _height(window)
        self.first = 0  # row of the grid that the first row held belongs to
        plane = window.grid[1:]
        self.sums = [make((classes, self.height, *plane), self.kind) for _ in range(folds)]
        self.counts = make((1, self.height, *plane), self.kind)
        self.weights = importance(window.tile).astype(np.float32)
        self.ones = np.ones((1, *window.tile), np.float32)
        self.is_finite = True

    def count(self, start: tuple[int, int, int]) -> None:
        """Note that there is a tile here."""
        z, y, x = start
        _add_half(self.counts, self.ones, self.weights, z - self.first, y, x, np.ones(1, np.bool_))

    def add(self, fold: int, tile: np.ndarray, start: tuple[int, int, int], part: slice = slice(None)) -> None:
        """Add what a network made of the tile at `start`, (c, z, y, x) in float32; of a part of the classes."""
        z, y, x = start
        fine = np.ones(1, np.bool_)
        _add_half(self.sums[fold][part], tile[part], self.weights, z - self.first, y, x, fine)
        self.is_finite = self.is_finite and bool(fine[0])

    def finish(self, rows: slice, *plane: slice) -> np.ndarray:
        """The means of some rows held, averaged over the folds, (c, rows, y, x); of a part of the plane."""
        box = (rows, *plane)
        counts = self.counts[(0, *box)]
        means = np.empty((self.sums[0].shape[0], *counts.shape), np.float32)
        _mean_half(self.sums[0][(slice(None), *box)], counts, means)
        if len(self.sums) > 1:
            other = np.empty_like(means)
            for sums in self.sums[1:]:
                _mean_half(sums[(slice(None), *box)], counts, other)
                _add_rounded(means, other)
            _divide_rounded(means, np.float32(len(self.sums)))
        return means

    def move_on(self, rows: int) -> None:
        """Forget rows that are finished."""
        for sums in (*self.sums, self.counts):
            for one in sums:  # class by class: numpy would copy all of them first
                one[: self.height - rows] = one[rows:].copy()
                one[self.height - rows :] = 0
        self.first += rows


class PreciseSums(Sums):
    """Sums in float32 of all folds together: more exact than nnU-Net's, and not the same."""

    kind = np.float32

    def __init__(self, window: Window, classes: int, folds: int, make: Make) -> None:
        super().__init__(window, classes, 1, make)
        self.folds = folds

    def count(self, start: tuple[int, int, int]) -> None:
        """Note that there is a tile here."""
        self.counts[(0, *self._box(start))] += self.folds * self.weights

    def add(self, fold: int, tile: np.ndarray, start: tuple[int, int, int], part: slice = slice(None)) -> None:
        """Add what a network made of the tile at `start`, (c, z, y, x) in float32; of a part of the classes."""
        self.sums[0][(part, *self._box(start))] += tile[part] * self.weights
        self.is_finite = self.is_finite and bool(np.isfinite(tile[part]).all())

    def finish(self, rows: slice, *plane: slice) -> np.ndarray:
        """The means of some rows held, (c, rows, y, x); of a part of the plane."""
        box = (slice(None), rows, *plane)
        return np.ascontiguousarray(self.sums[0][box] / self.counts[box])

    def _box(self, start: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        z, y, x = start[0] - self.first, *start[1:]
        depth, height, width = self.weights.shape
        return slice(z, z + depth), slice(y, y + height), slice(x, x + width)


def bytes_held(window: Window, classes: int, folds: int, *, is_precise: bool) -> int:
    """What sums over a window hold."""
    voxels = _height(window) * window.grid[1] * window.grid[2]
    return voxels * ((classes + 1) * 4 if is_precise else (classes * folds + 1) * 2)


def _height(window: Window) -> int:
    return min(window.grid[0], ROWS_OF_FLAT_TILES if window.is_flat else window.tile[0])


@numba.njit(nogil=True, cache=True)
def _add_half(
    sums: np.ndarray, tile: np.ndarray, weights: np.ndarray, z: int, y: int, x: int, fine: np.ndarray
) -> None:
    classes, depth, height, width = tile.shape
    beyond = np.int32(0)
    for c in range(classes):
        for i in range(depth):
            for j in range(height):
                line = sums[c, z + i, y + j, x : x + width]
                values = tile[c, i, j]
                counts = weights[i, j]
                for k in range(width):
                    total = from_half(line[k]) + values[k] * counts[k]
                    beyond |= np.int32(0) if abs(total) < LARGEST_HALF else np.int32(1)  # NaN compares false
                    line[k] = to_half(total)
    if beyond:
        fine[0] = False


@numba.njit(nogil=True, cache=True)
def _mean_half(sums: np.ndarray, counts: np.ndarray, means: np.ndarray) -> None:
    classes, rows, height, width = means.shape
    for c in range(classes):
        for i in range(rows):
            for j in range(height):
                for k in range(width):
                    mean = from_half(sums[c, i, j, k]) / from_half(counts[i, j, k])
                    means[c, i, j, k] = from_half(to_half(mean))


@numba.njit(nogil=True, cache=True)
def _add_rounded(means: np.ndarray, other: np.ndarray) -> None:
    for one, more in zip(means.reshape(-1, means.shape[-1]), other.reshape(-1, means.shape[-1])):  # noqa: B905
        for k in range(one.size):
            one[k] = from_half(to_half(one[k] + more[k]))


@numba.njit(nogil=True, cache=True)
def _divide_rounded(means: np.ndarray, count: np.float32) -> None:
    for one in means.reshape(-1, means.shape[-1]):
        for k in range(one.size):
            one[k] = from_half(to_half(one[k] / count))

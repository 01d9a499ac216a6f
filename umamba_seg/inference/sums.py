"""Sums of overlapping tiles, held for as many rows as a tile is high.

Tiles are visited with the first axis outermost. Once all that start in a row are done, the rows before the next start
are final: they are divided, handed on, and their place is used again. So what is held does not grow with the image.

Sums are kept in half precision and rounded after every addition, because nnU-Net's are, and small classes change with
that. `Sums` does so on CPUs, in memory or on disk; `DeviceSums` where the network runs; `PreciseSums` in float32.

Letters: c classes; z, y, x the grid of the network.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numba
import numpy as np
import torch
from torch import Tensor

from umamba_seg.inference.half import from_half, to_half
from umamba_seg.inference.tiles import Window, importance

LARGEST_HALF = np.float32(65520)  # from here on a half is infinite
ROWS_OF_FLAT_TILES = 8  # tiles of one slice are summed so many slices at a time
VALUES_OF_A_THREAD = 2**18  # less is not worth a thread

Start = tuple[int, int, int]
Make = Callable[[tuple[int, ...], type[np.generic]], np.ndarray]


class Accumulator(Protocol):
    """What adds up tiles."""

    height: int
    first: int

    @property
    def is_finite(self) -> bool:
        """Whether all sums are."""

    def add(self, fold: int, tile: Tensor, start: Start) -> None:
        """Add what the network of a fold made of the tile at `start`, (c, z, y, x)."""

    def count(self, start: Start) -> None:
        """Note that there is a tile here."""

    def finish(self, rows: slice, plane: tuple[slice, slice], means: np.ndarray) -> None:
        """Put the means of some rows held, averaged over the folds, into (c, 1 + rows, y, x) in float32.

        Args:
            rows: Which.
            plane: A part of y and of x.
            means: Where to; the first row is left to whoever knows the row before.
        """

    def move_on(self, rows: int) -> None:
        """Forget rows that are finished."""


class Sums:
    """On CPUs, in half precision.

    Args:
        window: The tiles.
        classes: c.
        folds: How many networks there are; each has sums of its own, since their means are averaged.
        make: Makes an array of zeros; a place on disk serves too.
        threads: How many may add.
    """

    kind: type[np.generic] = np.uint16

    def __init__(self, window: Window, classes: int, folds: int, make: Make, threads: int = 1) -> None:
        self.height = height_of(window)
        self.first = 0  # row of the grid that the first row held belongs to
        plane = window.grid[1:]
        self.sums = [make((classes, self.height, *plane), self.kind) for _ in range(folds)]
        self.counts = make((1, self.height, *plane), self.kind)
        self.weights = importance(window.tile).astype(np.float32)
        self.ones = np.ones((1, *window.tile), np.float32)
        self.is_finite = True
        self.parts = list(_parts(classes, min(threads, self.weights.size * classes // VALUES_OF_A_THREAD)))
        self.pool = ThreadPoolExecutor(len(self.parts))

    def add(self, fold: int, tile: Tensor, start: Start) -> None:
        """Add what the network of a fold made of the tile at `start`, (c, z, y, x)."""
        values = tile.float().cpu().contiguous().numpy()
        adding = [self.pool.submit(self._add, self.sums[fold][part], values[part], start) for part in self.parts]
        fine = [one.result() for one in adding]
        self.is_finite &= all(fine)

    def count(self, start: Start) -> None:
        """Note that there is a tile here."""
        self._add(self.counts, self.ones, start)

    def finish(self, rows: slice, plane: tuple[slice, slice], means: np.ndarray) -> None:
        """Put the means of some rows held into (c, 1 + rows, y, x), from the second row on."""
        corner = (rows.start, plane[0].start, plane[1].start)
        _mean_half(self.sums[0], self.counts, *corner, means)
        if len(self.sums) > 1:
            other = np.zeros_like(means)
            for sums in self.sums[1:]:
                _mean_half(sums, self.counts, *corner, other)
                _add_rounded(means, other)
            _divide_rounded(means, np.float32(len(self.sums)))

    def move_on(self, rows: int) -> None:
        """Forget rows that are finished."""
        for sums in (*self.sums, self.counts):
            for one in sums:  # class by class: numpy would copy all of them first
                one[: self.height - rows] = one[rows:].copy()
                one[self.height - rows :] = 0
        self.first += rows

    def _add(self, sums: np.ndarray, values: np.ndarray, start: Start) -> bool:
        z, y, x = start
        return bool(_add_half(sums, values, self.weights, z - self.first, y, x))


class PreciseSums(Sums):
    """In float32, of all folds together: more exact than nnU-Net's, and not the same."""

    kind = np.float32

    def __init__(self, window: Window, classes: int, folds: int, make: Make, threads: int = 1) -> None:
        super().__init__(window, classes, 1, make, threads)
        self.folds = folds

    def add(self, fold: int, tile: Tensor, start: Start) -> None:
        """Add what the network of a fold made of the tile at `start`, (c, z, y, x)."""
        values = tile.float().cpu().numpy()
        self.sums[0][(slice(None), *self._box(start))] += values * self.weights
        self.is_finite &= bool(np.isfinite(values).all())

    def count(self, start: Start) -> None:
        """Note that there is a tile here."""
        self.counts[(0, *self._box(start))] += self.folds * self.weights

    def finish(self, rows: slice, plane: tuple[slice, slice], means: np.ndarray) -> None:
        """Put the means of some rows held into (c, 1 + rows, y, x), from the second row on."""
        box = (slice(None), rows, *plane)
        np.divide(self.sums[0][box], self.counts[box], out=means[:, 1:])

    def _box(self, start: Start) -> tuple[slice, slice, slice]:
        return _box(start, self.first, self.weights.shape)


class DeviceSums:
    """Where the network runs, in half precision, in torch's arithmetic as nnU-Net has it there.

    Args:
        window: The tiles.
        classes: c.
        folds: How many networks there are.
        device: Of the sums.
    """

    def __init__(self, window: Window, classes: int, folds: int, device: torch.device) -> None:
        self.height = height_of(window)
        self.first = 0
        plane = window.grid[1:]
        self.sums = [torch.zeros(classes, self.height, *plane, dtype=torch.half, device=device) for _ in range(folds)]
        self.counts = torch.zeros(self.height, *plane, dtype=torch.half, device=device)
        self.weights = torch.tensor(importance(window.tile), device=device)
        self._fine = torch.ones((), dtype=torch.bool, device=device)

    @property
    def is_finite(self) -> bool:
        """Whether all sums are."""
        return bool(self._fine)

    @torch.inference_mode()
    def add(self, fold: int, tile: Tensor, start: Start) -> None:
        """Add what the network of a fold made of the tile at `start`, (c, z, y, x)."""
        sums = self.sums[fold][(slice(None), *_box(start, self.first, self.weights.shape))]
        sums += (tile * self.weights if tile.dtype == torch.half else tile * self.weights.float()).to(sums.device)
        self._fine &= sums.isfinite().all()

    @torch.inference_mode()
    def count(self, start: Start) -> None:
        """Note that there is a tile here."""
        self.counts[_box(start, self.first, self.weights.shape)] += self.weights

    @torch.inference_mode()
    def finish(self, rows: slice, plane: tuple[slice, slice], means: np.ndarray) -> None:
        """Put the means of some rows held into (c, 1 + rows, y, x), from the second row on."""
        box = (rows, *plane)
        made = self.sums[0][(slice(None), *box)] / self.counts[box]
        for sums in self.sums[1:]:
            made += sums[(slice(None), *box)] / self.counts[box]
        if len(self.sums) > 1:
            made /= len(self.sums)
        means[:, 1:] = made.float().cpu().numpy()

    @torch.inference_mode()
    def move_on(self, rows: int) -> None:
        """Forget rows that are finished."""
        for sums in (*self.sums, self.counts[None]):
            sums[:, : self.height - rows] = sums[:, rows:].clone()
            sums[:, self.height - rows :] = 0
        self.first += rows


def height_of(window: Window) -> int:
    """How many rows are held."""
    return min(window.grid[0], ROWS_OF_FLAT_TILES if window.is_flat else window.tile[0])


def bytes_held(window: Window, classes: int, folds: int, *, is_precise: bool) -> int:
    """What sums over a window hold."""
    voxels = height_of(window) * window.grid[1] * window.grid[2]
    return voxels * ((classes + 1) * 4 if is_precise else (classes * folds + 1) * 2)


def _box(start: Start, first: int, size: tuple[int, ...]) -> tuple[slice, slice, slice]:
    z, y, x = start[0] - first, *start[1:]
    return slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2])


def _parts(classes: int, pieces: int) -> Iterator[slice]:
    pieces = max(1, min(pieces, classes))
    return (slice(classes * i // pieces, classes * (i + 1) // pieces) for i in range(pieces))


# Lines of flat arrays: only of those numba knows that neighbours lie side by side, which vector code needs.


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_half(sums: np.ndarray, tile: np.ndarray, weights: np.ndarray, z: int, y: int, x: int) -> bool:
    """Add a weighted tile; whether all sums are finite."""
    classes, depth, height, width = tile.shape
    flat, values, counts = sums.reshape(-1), tile.reshape(-1), weights.reshape(-1)
    beyond = np.int32(0)
    for c in range(classes):
        for i in range(depth):
            for j in range(height):
                to = ((c * sums.shape[1] + z + i) * sums.shape[2] + y + j) * sums.shape[3] + x
                line = (i * height + j) * width
                of = c * depth * height * width + line
                held, more, share = flat[to : to + width], values[of : of + width], counts[line : line + width]
                for k in range(width):
                    total = from_half(held[k]) + more[k] * share[k]
                    beyond |= np.int32(0) if abs(total) < LARGEST_HALF else np.int32(1)  # NaN compares false
                    held[k] = to_half(total)
    return beyond == 0


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _mean_half(sums: np.ndarray, counts: np.ndarray, begin: int, y: int, x: int, out: np.ndarray) -> None:
    """The means of rows from `begin`, of the plane from (y, x), into all but the first row of `out`."""
    classes, rows, height, width = out.shape
    flat, weights, means = sums.reshape(-1), counts.reshape(-1), out.reshape(-1)
    for c in range(classes):
        for i in range(1, rows):
            for j in range(height):
                line = ((begin + i - 1) * sums.shape[2] + y + j) * sums.shape[3] + x
                of = c * sums.shape[1] * sums.shape[2] * sums.shape[3] + line
                to = ((c * rows + i) * height + j) * width
                held, share, mean = flat[of : of + width], weights[line : line + width], means[to : to + width]
                for k in range(width):
                    mean[k] = from_half(to_half(from_half(held[k]) / from_half(share[k])))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_rounded(means: np.ndarray, other: np.ndarray) -> None:
    flat, more = means.reshape(-1), other.reshape(-1)
    for k in range(flat.size):
        flat[k] = from_half(to_half(flat[k] + more[k]))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divide_rounded(means: np.ndarray, count: np.float32) -> None:
    flat = means.reshape(-1)
    for k in range(flat.size):
        flat[k] = from_half(to_half(flat[k] / count))

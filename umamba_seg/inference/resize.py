"""Resizing as a product of axis matrices: what skimage's `resize` computes, without its 64 taps for every voxel.

Along an axis of n voxels that becomes o, voxel j of the result lies at (n/o)·(j + ½) − ½ of the image, and every step
from voxels to values there is linear: with order 1 a mean of two, with order 3 the solution of a spline followed by a
mean of four. The rows of that matrix fall off by 0.268 a voxel, so 40 entries of each hold it to 1e-10.

A volume is resized slice by slice, and slices are kept only while a row of the result needs them.
All of it is computed in float64 and rounded once, as nnU-Net's is, which resizes in float64 too.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

BAND = 40  # entries of a row that are kept
EDGE = 12  # voxels that scipy repeats at each end before it solves for the spline


@dataclass(frozen=True, slots=True)
class Rows:
    """The matrix of one axis, in bands.

    Args:
        size: n, voxels of the image along the axis.
        first: For each voxel of the result the first voxel of the image it takes, (o,).
        weights: And how much of that and of the next ones, (o, band).
    """

    size: int
    first: np.ndarray
    weights: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes along the axis."""
        return self.size == len(self.first)


def positions(size: int, target: int) -> np.ndarray:
    """Where the voxels of the result lie in the image, in voxels of it."""
    return (size / target) * (np.arange(target) + 0.5) - 0.5


@lru_cache(maxsize=64)
def axis_rows(size: int, target: int, order: int) -> Rows:
    """The matrix that takes `size` voxels to `target`."""
    if order == 0:
        return Rows(size, np.floor(np.clip(positions(size, target), 0, size - 1) + 0.5).astype(np.int64), _ones(target))
    if order == 1:
        return _linear_rows(size, target)
    if order == 3:
        return _spline_rows(size, target)
    raise ValueError(f"order must be 0, 1 or 3, got {order}")


def _ones(target: int) -> np.ndarray:
    return np.ones((target, 1))


def _linear_rows(size: int, target: int) -> Rows:
    place = np.clip(positions(size, target), 0, size - 1)
    first = np.clip(np.floor(place), 0, max(size - 2, 0)).astype(np.int64)
    if size == 1:
        return Rows(size, first, _ones(target))
    share = place - first
    return Rows(size, first, np.stack([1 - share, share], 1))


def _spline_rows(size: int, target: int) -> Rows:
    padded = np.pad(np.eye(size), ((EDGE, EDGE), (0, 0)), mode="edge")
    spline = _spline(padded)
    place = np.clip(positions(size, target) + EDGE, 0, len(spline) - 1)
    start = np.floor(place).astype(np.int64)
    t = place - start
    u = 1 - t
    taps = [u**3 / 6, (t * t * (t - 2) * 3 + 4) / 6, (u * u * (u - 2) * 3 + 4) / 6]
    taps.append(1 - sum(taps))
    dense = sum(tap[:, None] * spline[np.clip(start + k - 1, 0, len(spline) - 1)] for k, tap in enumerate(taps))
    band = min(size, BAND)
    first = np.clip(start - EDGE - band // 2 + 1, 0, size - band)
    return Rows(size, first, np.ascontiguousarray(np.take_along_axis(dense, first[:, None] + np.arange(band), 1)))


def _spline(values: np.ndarray) -> np.ndarray:
    """Coefficients of the cubic spline through values along the first axis, which go on mirrored beyond both ends.

    Each value is a sixth of two neighbours and four sixths of its own coefficient. scipy solves that by a recursive
    filter; importing it would cost more than all else that a small prediction does beside the network.
    """
    last = len(values) - 1
    solved, ratio = values * 6, np.zeros(last + 1)
    for row in range(last + 1):  # elimination of a tridiagonal matrix, all columns at once
        pivot = (5 if row in (0, last) else 4) - (ratio[row - 1] if row else 0)
        solved[row] = (solved[row] - (solved[row - 1] if row else 0)) / pivot
        ratio[row] = 1 / pivot
    for row in range(last - 1, -1, -1):
        solved[row] -= ratio[row] * solved[row + 1]
    return solved


def resize(
    image: np.ndarray,
    shape: Sequence[int],
    *,
    order: int,
    separate_axis: int | None = None,
    separate_order: int = 0,
    threads: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Resize each channel of an image as nnU-Net does.

    Args:
        image: (c, z, y, x).
        shape: The size of the result along z, y, x.
        order: 0, 1 or 3.
        separate_axis: An axis of z, y, x along which voxels are so much longer that slices across it are resized one by
            one, and rows of the result then taken from them.
        separate_order: How they are taken; 0 is the next one.
        threads: How many threads may work.
        out: Where to put the result.

    Returns:
        (c, *shape) in float32, within the range of each channel, or of each slice where those are resized one by one.
    """
    result = np.empty((image.shape[0], *shape), np.float32) if out is None else out
    with ThreadPoolExecutor(threads) as pool:
        for channel, target in zip(image, result, strict=True):
            if tuple(shape) == channel.shape:
                target[:] = channel
            elif separate_axis is None:
                rows = [axis_rows(n, o, order) for n, o in zip(channel.shape, shape, strict=True)]
                limits = None if order < 2 else (float(channel.min()), float(channel.max()))
                _resize_rows(channel, target, rows, limits, pool, clip_slices=False)
            else:
                moved, to = np.moveaxis(channel, separate_axis, 0), np.moveaxis(target, separate_axis, 0)
                across = axis_rows(moved.shape[0], to.shape[0], separate_order)
                rows = [across, *(axis_rows(n, o, order) for n, o in zip(moved.shape[1:], to.shape[1:], strict=True))]
                _resize_rows(moved, to, rows, None, pool, clip_slices=order > 1)
    return result


def _resize_rows(
    image: np.ndarray,
    target: np.ndarray,
    rows: Sequence[Rows],
    limits: tuple[float, float] | None,
    pool: ThreadPoolExecutor,
    *,
    clip_slices: bool,
) -> None:
    """Make the result row by row of the first axis, from slices resized once and kept while they are needed."""
    along, *plane = rows
    slices = _slices(image, plane, clip_slices=clip_slices, pool=pool, needed=along)
    kept: dict[int, np.ndarray] = {}
    for row, (first, weights) in enumerate(zip(along.first, along.weights, strict=True)):
        for index in [i for i in kept if i < first]:
            del kept[index]
        last = int(first) + len(weights)
        while not kept or max(kept) < last - 1:
            index, values = next(slices)
            if index >= first:
                kept[index] = values
        if len(weights) == 1:
            total = kept[int(first)]
        else:
            total = np.zeros(target.shape[1:])
            for index, weight in zip(range(int(first), last), weights, strict=True):
                if weight:
                    _add_scaled(total, kept[index], weight)
        target[row] = np.clip(total, *limits) if limits else total


def _slices(
    image: np.ndarray, plane: Sequence[Rows], *, clip_slices: bool, pool: ThreadPoolExecutor, needed: Rows
) -> Iterator[tuple[int, np.ndarray]]:
    """The resized slices that rows of the result take, in order; a few ahead, one for each thread."""
    wanted = sorted({int(i) for first in needed.first for i in range(first, first + needed.weights.shape[1])})
    ahead = pool._max_workers
    waiting = [pool.submit(_resize_slice, image[i], plane, clip=clip_slices) for i in wanted[:ahead]]
    for position, index in enumerate(wanted):
        values = waiting.pop(0).result()
        if position + ahead < len(wanted):
            following = image[wanted[position + ahead]]
            waiting.append(pool.submit(_resize_slice, following, plane, clip=clip_slices))
        yield index, values


def _resize_slice(image: np.ndarray, plane: Sequence[Rows], *, clip: bool) -> np.ndarray:
    """A slice (y, x) in float64; the axis that shrinks most first."""
    result = np.ascontiguousarray(image, dtype=np.float64)
    for axis in sorted((0, 1), key=lambda a: len(plane[a].first) / plane[a].size):
        rows = plane[axis]
        if rows.is_identity:
            continue
        size = (len(rows.first), result.shape[1]) if axis == 0 else (result.shape[0], len(rows.first))
        following = np.zeros(size)
        (_across_lines if axis == 0 else _along_lines)(result, rows.first, rows.weights, following)
        result = following
    return np.clip(result, image.min(), image.max(), out=result) if clip else result


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _across_lines(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    for row in range(out.shape[0]):
        target = out[row]
        for k in range(weights.shape[1]):
            weight, line = weights[row, k], image[first[row] + k]
            for x in range(target.size):
                target[x] += weight * line[x]


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _along_lines(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    for row in range(out.shape[0]):
        for x in range(out.shape[1]):
            line, share = image[row, first[x] : first[x] + weights.shape[1]], weights[x]
            total = 0.0
            for k in range(share.size):
                total += share[k] * line[k]
            out[row, x] = total


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add_scaled(total: np.ndarray, values: np.ndarray, weight: float) -> None:
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            total[y, x] += weight * values[y, x]

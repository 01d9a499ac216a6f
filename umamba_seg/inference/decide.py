"""From logits on the network's grid to labels on the image, without logits on the image.

nnU-Net resizes the logits of every class to the image, rounds them to half precision and takes the largest. A resized
value is a mean of at most eight, so in a block of the image a class whose largest value in the block's source box lies
below the smallest of another cannot win there, nor tie, since rounding keeps order. Only what is left is computed, in
float64 and in scipy's order of additions; ties go to the first class. Where one is left there is nothing to compute.

Letters: c classes; z, y, x axes; a slab is some rows of the grid's first axis, all classes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from umamba_seg.inference.half import round_to_half
from umamba_seg.inference.resize import axis_rows, positions

BLOCK = 8  # voxels along each edge; 16 and 32 took twice and three times as long
INSIDE = 6e-8  # sigmoid(v) > 0.5 in float32 holds for every half above this one, the smallest of them


@dataclass(frozen=True, slots=True)
class Taps:
    """For each voxel along an axis of the image the one or two voxels of the grid it lies between.

    Args:
        low: The first, (o,).
        high: The second; the first again where that is all it takes.
        share: Of the second.
    """

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, size: int, target: int, order: int) -> "Taps":
        """Of an axis of `size` voxels that becomes `target`, by order 0 or 1.

        Beyond an end scipy takes a mean of the last voxel and itself, which need not be that voxel to the last bit; a
        tie between two classes hangs on it, so the share stays what it is there.
        """
        if order == 0:
            nearest = axis_rows(size, target, 0).first
            return cls(nearest, nearest, np.zeros(target))
        place = positions(size, target)
        low = np.floor(place)
        share = place - low
        first, last = low.astype(np.int64), size - 1
        return cls(np.clip(first, 0, last), np.clip(first + (share > 0), 0, last), share)


@dataclass(frozen=True, slots=True)
class Rule:
    """How logits become labels.

    Args:
        regions: Labels of the regions in the order they are written, each over those before; None where the classes
            exclude each other.
        is_rounded: Whether values are rounded to half precision first, as nnU-Net's are.
    """

    regions: tuple[int, ...] | None
    is_rounded: bool


class Decision:
    """Makes label rows from slabs that come one after the other along the first axis.

    Args:
        grid: Size of the grid that the logits lie on.
        labels: Where the labels go, (z, y, x); its size is that of the image.
        rule: How they are found.
        order: 0 or 1, of the resizing.
        separate: An axis along which the next row is taken, and the order there.
        threads: How many may work.
    """

    def __init__(
        self,
        grid: Sequence[int],
        labels: np.ndarray,
        rule: Rule,
        *,
        order: int = 1,
        separate: tuple[int, int] | None = None,
        threads: int = 1,
    ) -> None:
        self.labels, self.rule, self.threads = labels, rule, threads
        self._settings: dict[str, Any] = {"order": order, "separate": separate, "threads": threads}
        self.grid = tuple(grid)
        orders = [separate[1] if separate and axis == separate[0] else order for axis in range(3)]
        self.taps = [Taps.of(n, o, k) for n, o, k in zip(grid, labels.shape, orders, strict=True)]
        self.decided = 0
        self._next_row = 0

    def anew(self, rule: Rule) -> "Decision":
        """The same from the start, by another rule."""
        return type(self)(self.grid, self.labels, rule, **self._settings)

    def take(self, slab: np.ndarray) -> None:
        """Decide the rows that lie within what has come so far.

        Args:
            slab: (c, 1 + rows, y, x) in float32: the next rows, after the one before them, since a row of the image may
                lie between two slabs. What stands before the first row of all is not looked at.
        """
        first = self._next_row - 1
        self._next_row += slab.shape[1] - 1
        until = int(np.searchsorted(self.taps[0].high, self._next_row))
        self._decide(slab, first, until)
        self.decided = until

    def finish(self) -> None:
        """Do what is left when all slabs have come."""

    def _decide(self, slab: np.ndarray, first: int, until: int) -> None:
        with ThreadPoolExecutor(self.threads) as pool:
            done = [pool.submit(self._decide_rows, slab, first, *span) for span in _spans(self.decided, until)]
            for one in done:
                one.result()

    def _decide_rows(self, slab: np.ndarray, first: int, begin: int, end: int) -> None:
        taps = self._tables(first)
        if self.rule.regions is None:
            _largest(slab, self.labels, begin, end, taps, self.rule.is_rounded)
        else:
            order = np.asarray(self.rule.regions, self.labels.dtype)
            inside = INSIDE if self.rule.is_rounded else 0.0
            _regions(slab, self.labels, begin, end, taps, self.rule.is_rounded, order, inside)

    def _tables(self, first: int) -> tuple[np.ndarray, ...]:
        z, y, x = self.taps
        return z.low - first, z.high - first, z.share, y.low, y.high, y.share, x.low, x.high, x.share


class ProbableDecision(Decision):
    """The same for those who also want probabilities: softmax of all classes or sigmoid of all regions, in float32.

    Labels come from the probabilities, as nnU-Net's then do: two logits may differ where their softmax does not.
    """

    def __init__(self, *args: Any, probabilities: np.ndarray, **options: Any) -> None:
        super().__init__(*args, **options)
        self.probabilities = probabilities  # (c, z, y, x), of the image
        self._settings["probabilities"] = probabilities

    def _decide_rows(self, slab: np.ndarray, first: int, begin: int, end: int) -> None:
        import torch

        values = np.empty((slab.shape[0], end - begin, *self.labels.shape[1:]), np.float32)
        _all_values(slab, values, begin, self._tables(first), self.rule.is_rounded)
        logits = torch.from_numpy(values)
        made = (logits.softmax(0) if self.rule.regions is None else logits.sigmoid()).numpy()
        self.probabilities[:, begin:end] = made
        if self.rule.regions is None:
            self.labels[begin:end] = made.argmax(0)
            return
        self.labels[begin:end] = 0
        for region, label in zip(made, self.rule.regions, strict=True):
            self.labels[begin:end][region > 0.5] = label


class WholeDecision(Decision):
    """For plans that resize in another way: nnU-Net's own function, which needs the logits of the whole image.

    Args:
        original: The function: logits, size, spacing of the grid, spacing of the image.
        spacings: The last two.
        label_manager: nnU-Net's, which makes labels of logits.
        probabilities: Where those go that are wanted, (c, z, y, x).
    """

    def __init__(
        self,
        grid: Sequence[int],
        labels: np.ndarray,
        rule: Rule,
        *,
        original: Callable[..., Any],
        spacings: Sequence[Sequence[float]],
        label_manager: Any,
        probabilities: np.ndarray | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(grid, labels, rule, threads=threads)
        self._settings = {"original": original, "spacings": spacings, "label_manager": label_manager}
        self._settings |= {"probabilities": probabilities, "threads": threads}
        self.original, self.spacings, self.label_manager = original, spacings, label_manager
        self.probabilities = probabilities
        self._slabs: list[np.ndarray] = []

    def take(self, slab: np.ndarray) -> None:
        """Keep it."""
        self._slabs.append(slab[:, 1:].astype(np.float16 if self.rule.is_rounded else np.float32))

    def finish(self) -> None:
        """Resize and decide all at once."""
        logits = self.original(np.concatenate(self._slabs, 1), self.labels.shape, *self.spacings)
        self._slabs.clear()
        if self.probabilities is None:
            self.labels[:] = self.label_manager.convert_logits_to_segmentation(logits)
            return
        made = self.label_manager.apply_inference_nonlin(logits)
        self.probabilities[:] = made
        self.labels[:] = self.label_manager.convert_probabilities_to_segmentation(made)


def _spans(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of whole blocks."""
    for start in range(begin, end, BLOCK):
        yield start, min(start + BLOCK, end)


@numba.njit(nogil=True, inline="always")
def _value(c, i, j, k, slab, taps, rounded):  # type: ignore[no-untyped-def]  # -> float64
    z0, z1, tz, y0, y1, ty, x0, x1, tx = taps
    a, b, e, f, g, h = z0[i], z1[i], y0[j], y1[j], x0[k], x1[k]
    w, v, u = tz[i], ty[j], tx[k]
    one = slab[c]
    total = one[a, e, g] * (1 - w) * (1 - v) * (1 - u)
    total += one[a, e, h] * (1 - w) * (1 - v) * u
    total += one[a, f, g] * (1 - w) * v * (1 - u)
    total += one[a, f, h] * (1 - w) * v * u
    total += one[b, e, g] * w * (1 - v) * (1 - u)
    total += one[b, e, h] * w * (1 - v) * u
    total += one[b, f, g] * w * v * (1 - u)
    total += one[b, f, h] * w * v * u
    return round_to_half(total) if rounded else total


@numba.njit(nogil=True, inline="always")
def _range(c, slab, box, limits):  # type: ignore[no-untyped-def]  # limits[c] = least and largest in the box
    z0, z1, y0, y1, x0, x1 = box
    least = largest = slab[c, z0, y0, x0]
    for i in range(z0, z1 + 1):
        for j in range(y0, y1 + 1):
            for value in slab[c, i, j, x0 : x1 + 1]:
                least = min(least, value)
                largest = max(largest, value)
    limits[c, 0], limits[c, 1] = least, largest


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _largest(slab, labels, begin, end, taps, rounded):  # type: ignore[no-untyped-def]
    z0, z1, _, y0, y1, _, x0, x1, _ = taps
    classes = slab.shape[0]
    limits = np.empty((classes, 2), np.float32)
    left = np.empty(classes, np.int64)
    for j in range(0, labels.shape[1], BLOCK):
        j_end = min(j + BLOCK, labels.shape[1])
        for k in range(0, labels.shape[2], BLOCK):
            k_end = min(k + BLOCK, labels.shape[2])
            box = (z0[begin], z1[end - 1], y0[j], y1[j_end - 1], x0[k], x1[k_end - 1])
            for c in range(classes):
                _range(c, slab, box, limits)
            certain = limits[:, 0].max()
            count = 0
            for c in range(classes):
                if limits[c, 1] >= certain:
                    left[count] = c
                    count += 1
            if count == 1:
                labels[begin:end, j:j_end, k:k_end] = left[0]
                continue
            for z in range(begin, end):
                for y in range(j, j_end):
                    for x in range(k, k_end):
                        best, label = _value(left[0], z, y, x, slab, taps, rounded), left[0]
                        for n in range(1, count):
                            value = _value(left[n], z, y, x, slab, taps, rounded)
                            if value > best:
                                best, label = value, left[n]
                        labels[z, y, x] = label


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _regions(slab, labels, begin, end, taps, rounded, order, inside):  # type: ignore[no-untyped-def]
    z0, z1, _, y0, y1, _, x0, x1, _ = taps
    regions = slab.shape[0]
    limits = np.empty((regions, 2), np.float32)
    for j in range(0, labels.shape[1], BLOCK):
        j_end = min(j + BLOCK, labels.shape[1])
        for k in range(0, labels.shape[2], BLOCK):
            k_end = min(k + BLOCK, labels.shape[2])
            box = (z0[begin], z1[end - 1], y0[j], y1[j_end - 1], x0[k], x1[k_end - 1])
            labels[begin:end, j:j_end, k:k_end] = 0
            for c in range(regions):  # in the order they are written: later ones cover earlier ones
                _range(c, slab, box, limits)
                if limits[c, 0] > inside:
                    labels[begin:end, j:j_end, k:k_end] = order[c]
                elif limits[c, 1] > inside:
                    for z in range(begin, end):
                        for y in range(j, j_end):
                            for x in range(k, k_end):
                                if _value(c, z, y, x, slab, taps, rounded) > inside:
                                    labels[z, y, x] = order[c]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _all_values(slab, out, begin, taps, rounded):  # type: ignore[no-untyped-def]
    for c in range(out.shape[0]):
        for z in range(out.shape[1]):
            for y in range(out.shape[2]):
                for x in range(out.shape[3]):
                    out[c, z, y, x] = _value(c, begin + z, y, x, slab, taps, rounded)

"""The volumes that slices make: alike, in order along their normal, and parted where positions clash."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umamba_seg.inference.dicom.slices import APART, Slice

SAME_MM = 0.01  # positions nearer than this are one position
UNEVEN = 0.1  # of a step: farther from its place in an even grid, a slice is misplaced
ROUNDED_MM = 0.11  # or as far as positions rounded to 0.1 mm may lie from their grid, but never a quarter step
SAME_DIRECTION = 1e-3  # of a cosine; scanners round them differently from slice to slice
SAME_SPACING = 1e-3  # relative


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in order along their normal; `along` holds where each lies on it, in mm."""

    slices: tuple[Slice, ...]
    axes: np.ndarray
    points: np.ndarray  # (slices, 3)
    along: np.ndarray  # (slices,)

    @property
    def pixel(self) -> float:
        """Its shorter side, in mm."""
        return min(self.slices[0].spacing or (1.0,))

    @property
    def length(self) -> float:
        """From the first slice to the last, in mm."""
        return float(self.along[-1] - self.along[0])

    @property
    def step(self) -> float:
        """The usual distance of neighbours, which neither gaps nor doubles move."""
        apart = np.sort(np.diff(self.along))
        apart = apart[apart > SAME_MM]
        if not len(apart):
            return 0.0
        middle = apart[(len(apart) - 1) // 2]
        return float(apart[np.abs(apart - middle) < middle / 2].mean())

    @property
    def slack(self) -> float:
        """How far from its place a slice may lie, in mm."""
        return max(UNEVEN * self.step, min(ROUNDED_MM, self.step / 4))

    @property
    def sideways(self) -> np.ndarray:
        """(slices, 3): how far each slice lies from the normal through the first, in mm."""
        offsets = self.points - self.points[0]
        return offsets - np.outer(self.along - self.along[0], self.axes[:, 2])


@dataclass(frozen=True, slots=True)
class Volume:
    """Slices that belong together, in the order of their files."""

    slices: tuple[Slice, ...]
    marks: tuple[tuple[str, str], ...] = ()  # what tells it from the other volumes of its series, name and value


def volumes_of(slices: Sequence[Slice]) -> list[Volume]:
    """The volumes of one series: slices of one size, spacing and orientation, parted further where positions clash."""
    alike: list[list[Slice]] = []
    for one in slices:
        group = next((group for group in alike if _are_alike(group[0], one)), None)
        if group is None:
            alike.append([one])
        else:
            group.append(one)
    are_mixed = len(alike) > 1
    marks = [(("orientation", _orientation(group[0])),) if are_mixed else () for group in alike]
    return [part for group, mark in zip(alike, marks, strict=True) for part in _parted(Volume(tuple(group), mark))]


def grouped(slices: Iterable[Slice], key: Callable[[Slice], Hashable]) -> dict[Any, list[Slice]]:
    """By what each has under `key`, in the order of the first of each group."""
    groups: dict[Any, list[Slice]] = {}
    for one in slices:
        groups.setdefault(key(one), []).append(one)
    return groups


def _are_alike(a: Slice, b: Slice) -> bool:
    if a.size != b.size or (a.path != b.path and max(a.frames, b.frames) > 1):  # a file of many frames is by itself
        return False
    return near(a.axes, b.axes, atol=SAME_DIRECTION) and near(a.spacing, b.spacing, rtol=SAME_SPACING)


def near(a: Any, b: Any, *, rtol: float = 0, atol: float = 0) -> bool:
    """Whether numbers are alike, or neither is there."""
    return a is b if a is None or b is None else np.allclose(a, b, rtol=rtol, atol=atol)


def _orientation(one: Slice) -> str:
    if one.axes is None:
        return ""
    return ("sagittal", "coronal", "axial")[int(np.abs(one.axes[:, 2]).argmax())]


def _parted(volume: Volume) -> list[Volume]:
    """The volume, or those into which the first header value of `APART` parts it that makes its slices clash less."""
    clashes = _clashes(volume.slices)
    if not clashes:
        return [volume]
    for name in APART:
        parts = grouped(volume.slices, lambda one, name=name: str(one.tags.get(name, "")))  # type: ignore[misc]
        if len(parts) == 1 or min(map(len, parts.values())) == 1:
            continue
        if sum(map(_clashes, parts.values())) < clashes:
            return [
                part
                for value in sorted(parts, key=_by_number)
                for part in _parted(Volume(tuple(parts[value]), (*volume.marks, (name, value))))
            ]
    return [volume]


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _clashes(slices: Sequence[Slice]) -> int:
    """How many neighbours do not lie one step apart on a line."""
    stack = stack_of(slices)
    if stack is None or len(slices) < 2:
        return 0
    steps, drift = np.diff(stack.along), np.diff(stack.sideways, axis=0)
    is_off = np.abs(steps - stack.step) > 2 * stack.slack
    is_aside = np.linalg.norm(drift - np.median(drift, axis=0), axis=1) > stack.pixel
    return int(np.count_nonzero((steps <= SAME_MM) | is_off | is_aside))


def stack_of(slices: Sequence[Slice]) -> Stack | None:
    """The slices in order, None where one has no place."""
    axes = slices[0].axes
    positions = [one.position for one in slices if one.position is not None]
    if axes is None or slices[0].spacing is None or len(positions) < len(slices):
        return None
    points = np.array(positions)
    along = points @ axes[:, 2]
    order = np.argsort(along, kind="stable")
    return Stack(tuple(slices[index] for index in order), axes, points[order], along[order])

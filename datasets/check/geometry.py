"""Where voxels lie: each file by itself, label against image, channel against channel.

Two grids are compared by how far apart they put the centres of their corner voxels, in units of the smallest spacing:
up to 0.05 is rounding, up to 0.5 a warning, more an error. Its code is the main cause.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from umamba_seg.datasets.check.facts import CaseFacts, FileFacts, displacement
from umamba_seg.datasets.findings import Finding, Severity
from umamba_seg.datasets.pictures import is_picture

ROUNDING, MOST = 0.05, 0.5  # voxels
SPACING_TOLERANCE, ANGLE_TOLERANCE = 1e-3, math.radians(0.1)
SHEAR_TOLERANCE = 1e-3


def faults(case: CaseFacts, name: str) -> Iterator[Finding]:
    """All that is wrong with where a case's voxels lie; `name` is the folder of the set."""
    files = [*case.images.values(), *([case.label] if case.label is not None else [])]
    for file in files:
        yield from _of_file(case.case, file)
    first = case.images.get(0)
    if first is None or first.fault:
        return
    for number, image in sorted(case.images.items()):
        if number and not image.fault:
            for code, message, values in _differences(first, image):
                yield Finding(
                    "channel-geometry" if code != "geometry-noise" else code,
                    "warning" if code == "geometry-noise" else "error",
                    f"channel {number} against channel 0: {message}",
                    cases=(case.case,), files=(image.name, first.name), expected=values[0], found=values[1],
                )  # fmt: skip
    if case.label is not None and not case.label.fault:
        for code, message, values in _differences(first, case.label):
            severity: Severity = "warning" if code == "geometry-noise" else "error"
            told = "prints a warning and trains on it" if code in ("origin-mismatch", "direction-mismatch") else ""
            yield Finding(
                code, severity, f"label against image: {message}", cases=(case.case,),
                files=(first.name, case.label.name), expected=values[0], found=values[1], nnunet=told,
            )  # fmt: skip


def _of_file(case: str, file: FileFacts) -> Iterator[Finding]:
    where: dict[str, Any] = {"cases": (case,), "files": (file.name,)}
    if file.fault:
        yield Finding(
            "unreadable", "error", file.fault, **where, nnunet="may read zeros in its place", mend="fetch it again"
        )  # fmt: skip
        return
    if file.is_coloured or file.kind.startswith("c"):
        if is_picture(file.path):
            return
        kind = "complex" if file.kind.startswith("c") else "coloured"
        yield Finding("colour-volume", "error", f"its voxels are {kind}", **where, found=file.kind)
        return
    if len(file.space) > 3:
        like = "a time series or several channels in one file"
        message = f"it has {len(file.space)} axes, {'×'.join(map(str, file.shape))}: it looks like {like}"
        yield Finding(
            "wrong-dimension", "error", message, **where, found=list(file.shape), mend="umamba import --split-4d"
        )
        return
    if len(file.shape) > 3:
        message = f"it has trailing axes of 1: {'×'.join(map(str, file.shape))}"
        yield Finding("wrong-dimension", "warning", message, **where, found=list(file.shape))
    bad = [x for x in file.pixdim[:3] if not (math.isfinite(x) and x > 0)]
    if bad or not np.isfinite(file.affine).all():
        found = [float(x) for x in file.pixdim[:3]]
        yield Finding(
            "spacing-invalid", "error", f"its spacing makes no sense: {found}", **where, found=found,
            nnunet="reads 1 mm in its place",
        )  # fmt: skip
        return
    if file.slope_is_odd:
        yield Finding("image-nonfinite", "warning", "the header's slope is not finite", **where, nnunet="ignores it")
    yield from _directions(file, where)
    if not file.has_form:
        message = "neither sform nor qform is set: where the voxels lie is not known"
        yield Finding("sform-qform", "warning", message, **where)
    elif file.forms is not None and file.forms > ROUNDING:
        message = f"sform and qform put the voxels {file.forms:.2g} voxels apart; which counts depends on the reader"
        yield Finding("sform-qform", "warning", message, **where, found=file.forms)


def _directions(file: FileFacts, where: dict[str, Any]) -> Iterator[Finding]:
    columns = file.affine[:3, : min(3, len(file.shape))]
    lengths = np.linalg.norm(columns, axis=0)
    if (lengths < 1e-6).any():
        yield Finding("nonorthonormal", "error", "an axis has no direction", **where, found=columns.tolist())
        return
    unit = columns / lengths
    shear = np.abs(unit.T @ unit - np.eye(unit.shape[1])).max()
    if shear > SHEAR_TOLERANCE:
        size = np.array([n - 1 for n in file.shape[:3]])
        voxels = float(shear * size.max())
        angle = math.degrees(math.asin(min(1.0, shear)))
        yield Finding(
            "nonorthonormal", "error" if voxels > MOST else "warning",
            f"its axes are sheared by {angle:.2g}°, {voxels:.2g} voxels at the far side", **where, found=angle,
            nnunet="reads the nearest grid without shear", mend="resample it to a grid with right angles",
        )  # fmt: skip


def _differences(one: FileFacts, other: FileFacts) -> Iterator[tuple[str, str, tuple]]:
    """Code, words, and the two values; none where the grids agree."""
    if one.is_coloured and not other.is_coloured and not is_picture(one.path):
        return
    if len(one.space) > 3 or len(other.space) > 3:
        return
    if one.space != other.space:
        yield "shape-mismatch", _about_shapes(one.space, other.space), (list(one.space), list(other.space))
        return
    if one.side_car or other.side_car or not (np.isfinite(one.affine).all() and np.isfinite(other.affine).all()):
        return
    far = displacement(one.affine, other.affine, one.shape)
    voxels = far / max(min(one.spacing[: len(one.space)]), 1e-6)
    if voxels <= ROUNDING:
        return
    code, words, values = _cause(one, other)
    if voxels <= MOST:
        code = "geometry-noise"
    yield code, f"{words}; {far:.3g} mm, {voxels:.2g} voxels apart at most", values


def _about_shapes(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    words = f"{'×'.join(map(str, one))} and {'×'.join(map(str, other))} voxels"
    if sorted(one) == sorted(other):
        return f"{words}: axes are swapped"
    ratios = [a / b for a, b in zip(one, other, strict=False)]
    if len(one) == len(other) and all(abs(ratio - ratios[0]) < 0.05 for ratio in ratios) and ratios[0] != 1:
        return f"{words}: {max(ratios[0], 1 / ratios[0]):.3g} times as coarse"
    return words


def _cause(one: FileFacts, other: FileFacts) -> tuple[str, str, tuple]:
    a, b = np.array(one.spacing), np.array(other.spacing)
    if (np.abs(a - b) > SPACING_TOLERANCE * np.maximum(a, b)).any():
        hint = ": its geometry was lost" if np.allclose(b, 1) and not np.allclose(a, 1) else ""
        words = f"spacing {_numbers(a)} and {_numbers(b)} mm{hint}"
        return "spacing-mismatch", words, (a.tolist(), b.tolist())
    turn = np.clip((one.affine[:3, :3] / a * (other.affine[:3, :3] / b)).sum(0), -1, 1)
    if (np.arccos(turn) > ANGLE_TOLERANCE).any():
        codes = "".join(_axis_codes(one.affine)), "".join(_axis_codes(other.affine))
        angle = math.degrees(float(np.arccos(turn).max()))
        words = f"axes point {codes[0]} and {codes[1]}" if codes[0] != codes[1] else f"axes are turned by {angle:.3g}°"
        return "direction-mismatch", words, codes
    shift = other.affine[:3, 3] - one.affine[:3, 3]
    flipped = np.allclose(one.affine[:2, 3], -other.affine[:2, 3]) and not np.allclose(shift, 0)
    hint = ": x and y have the other sign" if flipped else ""
    return (
        "origin-mismatch",
        f"shifted by {_numbers(shift)} mm{hint}",
        (
            one.affine[:3, 3].tolist(),
            other.affine[:3, 3].tolist(),
        ),
    )


def _axis_codes(affine: np.ndarray) -> list[str]:
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    found = []
    for column in affine[:3, :3].T:
        axis = int(np.abs(column).argmax())
        found.append(letters[axis][int(column[axis] > 0)])
    return found


def _numbers(values: np.ndarray) -> str:
    return "×".join(f"{value:.3g}" for value in values)

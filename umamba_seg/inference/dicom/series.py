"""The volumes of a folder as a user sees them, and the choice of one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from umamba_seg.errors import DataError, unknown
from umamba_seg.inference.dicom.faults import ONLY_BY_NAME, RESAMPLED, WAYS, doubt_of, fault_of, is_localiser, tilt_of
from umamba_seg.inference.dicom.slices import Coding, Slice, slices_of
from umamba_seg.inference.dicom.stacks import Stack, Volume, grouped, stack_of, volumes_of


@dataclass(frozen=True, slots=True)
class Source:
    """Where a volume lies, on disk and in the patient.

    Args:
        files: Of each slice, in order along the normal.
        frames: Of each slice, its number in its file.
        codings: Of each slice, how its numbers are stored.
        first_coding: That of the first frame in the file.
        origin: Of the first voxel, in mm.
        direction: (3, 3), columns x, y, n.
        lean: How many mm the slices drift sideways with each mm along the normal, as a vector; zeros without tilt.
    """

    files: tuple[Path, ...]
    frames: tuple[int, ...]
    codings: tuple[Coding, ...]
    first_coding: Coding
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    lean: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Series:
    """A volume of a DICOM folder.

    Args:
        uid: Its SeriesInstanceUID; with `:1`, `:2`, ... where one series holds several volumes.
        description: As the scanner has it, and what tells it from the other volumes of its series.
        modality: CT, MR, PT, ...
        slices: How many there are.
        size: Voxels along x, y, n.
        spacing: In mm along x, y, n.
        fault: Why it is not chosen by itself, None for a sound volume.
        code: Short name of the fault. Those in `ONLY_BY_NAME` can be read all the same, `RESAMPLED` on request.
        source: What `read_series` needs.
    """

    uid: str
    description: str
    modality: str
    slices: int
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    fault: str | None
    code: str | None
    source: Source = field(repr=False)


def series_in(folder: Path) -> list[Series]:
    """The volumes of a folder and of the folders in it, sound or not. Other files than DICOM are passed over.

    Raises:
        DataError: There is no DICOM image, or a file is damaged.
        MachineError: pydicom is missing.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), code="no-input")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    slices = [one for path in files for one in slices_of(path)]
    if not slices:
        endings = ", ".join(sorted({path.suffix or "no ending" for path in files})) or "nothing"
        raise DataError(f"no file is a DICOM image; {len(files)} files: {endings}", where=str(folder), code="no-dicom")
    by_uid = grouped(slices, lambda one: str(one.tags.get("SeriesInstanceUID", "")))
    return [found for uid, group in by_uid.items() for found in _described(uid, volumes_of(group))]


def choose(series: Sequence[Series], wanted: str | None = None, *, resample_tilt: bool = False) -> Series:
    """The only sound volume, or the one that is wanted by its `uid`.

    Raises:
        DataError: None or several are sound, or the one that is wanted cannot be read.
        UsageError: The wanted one is not there.
    """
    if wanted is not None:
        found = [one for one in series if one.uid == wanted] or [one for one in series if _plain(one) == wanted]
        if not found:
            how = ["the folder holds\n" + table(series)]
            raise unknown("series", wanted, [one.uid for one in series], where="--series", how=how)
        if len(found) == 1:
            refuse(found[0], resample_tilt)
            return found[0]
        series = found
    sound = [one for one in series if one.fault is None or (one.code == RESAMPLED and resample_tilt)]
    if len(sound) == 1:
        return sound[0]
    if len(series) == 1 and series[0].code not in ONLY_BY_NAME:
        refuse(series[0], resample_tilt)
    what = f"{len(sound)} volumes could be meant" if sound else "no volume can be chosen without a word"
    named = sound or [one for one in series if one.code in ONLY_BY_NAME]
    ways = [f"name one: --series {named[0].uid}"] if named else []
    if not sound and any(one.code == RESAMPLED for one in series):
        ways.append(WAYS[RESAMPLED])
    code = "several-series" if sound else "no-sound-series"
    raise DataError(f"{what}\n{table(series)}", where="DICOM", how=ways, code=code)


def table(series: Sequence[Series]) -> str:
    """One line for each volume, to choose from."""
    head = ("series", "kind", "size", "spacing in mm", "description", "state")
    rows = [
        (one.uid, one.modality, times(one.size), times(one.spacing), one.description, one.fault or "sound")
        for one in series
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def refuse(series: Series, resample_tilt: bool) -> None:
    """Raise what keeps a volume from being read that was asked for by name."""
    is_tilted, is_volume = any(series.source.lean), series.code in {None, RESAMPLED, *ONLY_BY_NAME}
    if is_volume and (resample_tilt or not is_tilted):
        return
    code = RESAMPLED if is_volume else str(series.code)
    ways = [WAYS[code]] if code in WAYS else []
    raise DataError(str(series.fault), where=f"series {series.uid}", how=ways, code=code)


def _plain(series: Series) -> str:
    return series.uid.partition(":")[0]


def times(values: Iterable[float]) -> str:
    """`512×512×40`."""
    return "×".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


def _described(uid: str, volumes: Sequence[Volume]) -> list[Series]:
    rivals = [one for one in volumes if len(one.slices) > 1 and not is_localiser(one)]
    names = [f"{uid}:{number}" if len(volumes) > 1 else uid for number in range(1, len(volumes) + 1)]
    return [_series(name, volume, rivals) for name, volume in zip(names, volumes, strict=True)]


def _series(uid: str, volume: Volume, rivals: Sequence[Volume]) -> Series:
    first, stack = volume.slices[0], stack_of(volume.slices)
    faults = [fault_of(volume, stack)]
    if faults == [None]:
        faults = [doubt_of(volume, rivals), tilt_of(stack)]  # both may be: an echo of a tilted volume
    told = [fault for fault in faults if fault]
    labels = [value if name == "orientation" else f"{name} {value}" for name, value in volume.marks]
    x, y = first.spacing or (1.0, 1.0)
    return Series(
        uid,
        " ".join([str(first.tags.get("SeriesDescription") or ""), *labels]).strip(),
        str(first.tags.get("Modality") or ""),
        len(volume.slices),
        (*first.size, len(volume.slices)),
        (x, y, _step(first, stack)),
        "; ".join(sentence for _, sentence in told) or None,
        told[0][0] if told else None,
        _source(volume.slices, stack),
    )


def _step(first: Slice, stack: Stack | None) -> float:
    """The distance of slices; of a single slice, how thick it is."""
    if stack is not None and stack.step:
        mean = stack.length / (len(stack.slices) - 1)
        return mean if abs(mean - stack.step) <= stack.slack else stack.step
    told = [first.tags.get(name) for name in ("SpacingBetweenSlices", "SliceThickness")]
    return next((float(x) for x in told if x and float(x) > 0), 1.0)


def _source(slices: Sequence[Slice], stack: Stack | None) -> Source:
    ordered = slices if stack is None else stack.slices
    files, frames = tuple(one.path for one in ordered), tuple(one.frame for one in ordered)
    codings = tuple(one.coding for one in ordered)
    if stack is None:
        return Source(files, frames, codings, slices[0].first_coding)
    lean = stack.sideways[-1] / stack.length if tilt_of(stack) and stack.length else np.zeros(3)
    origin, direction = stack.points[0].tolist(), stack.axes.ravel().tolist()
    return Source(files, frames, codings, slices[0].first_coding, tuple(origin), tuple(direction), tuple(lean.tolist()))

"""DICOM folders: which volumes lie in one, what is wrong with each, and their voxels where the patient was.

Files are grouped here and not by SimpleITK, whose reader takes gaps and tilts for even slices without a word.
A slice is one file, or one frame of a file of many (enhanced multi-frame); both are sorted and checked alike.

Points are in mm in DICOM's own directions (left, posterior, superior), which are SimpleITK's too. Axes: x along a row,
y along a column, n the normal of the slices, x × y. No axis is ever flipped: slices are put in order along n.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from umamba_seg.errors import DataError, MachineError, unknown

if TYPE_CHECKING:
    import SimpleITK

SAME_MM = 0.01  # positions nearer than this are one position
UNEVEN = 0.1  # of a step: farther from its place in an even grid, a slice is misplaced
ROUNDED_MM = 0.11  # or as far as positions rounded to 0.1 mm may lie from their grid, but never a quarter step
SIDEWAYS = 0.5  # of a pixel, from the first slice to the last: more is a tilted gantry
SAME_DIRECTION = 1e-3  # of a cosine; scanners round them differently from slice to slice
SAME_SPACING = 1e-3  # relative

# What may tell volumes of one series apart whose slices share their positions, surest first.
APART = (
    "EchoTime", "EffectiveEchoTime", "EchoNumbers", "TemporalPositionIdentifier", "TemporalPositionIndex", "StackID",
    "AcquisitionNumber", "FrameAcquisitionNumber", "ImageType", "FrameType", "DiffusionBValue", "TriggerTime",
    "FrameOfReferenceUID",
)  # fmt: skip
TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "ImageType", "Rows",
    "Columns", "NumberOfFrames", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness",
    "SpacingBetweenSlices", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", *APART,
)  # fmt: skip

UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
# Deflate, JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000, run lengths: what every SimpleITK decodes.
DECODED = {
    f"1.2.840.10008.1.2.{end}" for end in ("1.99", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "5")
}

RESAMPLED = "gantry-tilt"
# Nothing is wrong with these, but which of them is meant cannot be guessed.
ONLY_BY_NAME = {"localiser", "single-slice", "multi-echo", "mixed-orientation", "several-volumes"}
WAYS = {
    RESAMPLED: "resample it to an upright grid: --resample-tilt",
    "missing-slices": "fetch the series again from the archive; slices that are not there cannot be made up",
    "doubled-slices": "keep one file for each position",
    "uneven-slices": "export a reconstruction of even slices",
    "compressed-syntax": "export the series uncompressed, as Explicit VR Little Endian",
    "cut-off": "copy or fetch the file again",
    "colour": "export the original images, in shades of grey",
}


@dataclass(frozen=True, slots=True)
class Coding:
    """How numbers are stored: value = slope × number + intercept."""

    slope: float
    intercept: float
    is_signed: bool
    bits: int


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


@dataclass(frozen=True, slots=True)
class _Slice:
    path: Path
    frame: int
    frames: int  # in its file
    tags: Mapping[str, Any]
    size: tuple[int, int]
    spacing: tuple[float, float] | None  # along x, y
    axes: np.ndarray | None  # (3, 3), columns x, y, n
    position: tuple[float, ...] | None
    coding: Coding
    first_coding: Coding  # of the first frame in its file
    fault: tuple[str, str] | None  # code and sentence


@dataclass(frozen=True, slots=True)
class _Stack:
    """Slices in order along their normal; `along` holds where each lies on it, in mm."""

    slices: tuple[_Slice, ...]
    axes: np.ndarray
    points: np.ndarray  # (slices, 3)
    along: np.ndarray  # (slices,)

    @property
    def pixel(self) -> float:
        """Its shorter side, in mm."""
        return min(self.slices[0].spacing or (1.0,))

    @property
    def length(self) -> float:
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
class _Volume:
    slices: tuple[_Slice, ...]
    marks: tuple[tuple[str, str], ...] = ()  # what tells it from the other volumes of its series, name and value


def series_in(folder: Path) -> list[Series]:
    """The volumes of a folder and of the folders in it, sound or not. Other files than DICOM are passed over.

    Raises:
        DataError: There is no DICOM image, or a file is damaged.
        MachineError: pydicom is missing.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), code="no-input")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    slices = [one for path in files for one in _slices(path)]
    if not slices:
        endings = ", ".join(sorted({path.suffix or "no ending" for path in files})) or "nothing"
        raise DataError(f"no file is a DICOM image; {len(files)} files: {endings}", where=str(folder), code="no-dicom")
    by_uid = _grouped(slices, lambda one: str(one.tags.get("SeriesInstanceUID", "")))
    return [found for uid, group in by_uid.items() for found in _described(uid, _volumes(group))]


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
            _refuse(found[0], resample_tilt)
            return found[0]
        series = found
    sound = [one for one in series if one.fault is None or (one.code == RESAMPLED and resample_tilt)]
    if len(sound) == 1:
        return sound[0]
    if len(series) == 1 and series[0].code not in ONLY_BY_NAME:
        _refuse(series[0], resample_tilt)
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
        (one.uid, one.modality, _times(one.size), _times(one.spacing), one.description, one.fault or "sound")
        for one in series
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def read_series(series: Series, *, resample_tilt: bool = False) -> "SimpleITK.Image":
    """The voxels in the scanner's units (HU in CT), where the headers place them.

    A tilted volume is resampled, linearly and within its slices alone, to a grid that holds all of it; what was not
    scanned takes the smallest value.

    Raises:
        DataError: The volume has a fault, or its pixels cannot be decoded.
    """
    _refuse(series, resample_tilt)
    try:
        image = _pixels(series.source)
    except RuntimeError as fault:
        what = f"SimpleITK cannot read its pixels: {str(fault).strip().splitlines()[-1]}"
        raise DataError(what, where=str(series.source.files[0].parent), code="unreadable-pixels") from fault
    if image.GetSize() != series.size:
        what = f"its headers promise {_times(series.size)} voxels; {_times(image.GetSize())} were read"
        raise DataError(what, where=str(series.source.files[0].parent), code="unreadable-pixels")
    image.SetSpacing(series.spacing)
    image.SetOrigin(series.source.origin)
    image.SetDirection(series.source.direction)
    return _upright(image, np.array(series.source.lean)) if any(series.source.lean) else image


def _refuse(series: Series, resample_tilt: bool) -> None:
    """Raise what keeps a volume from being read that was asked for by name."""
    is_tilted, is_volume = any(series.source.lean), series.code in {None, RESAMPLED, *ONLY_BY_NAME}
    if is_volume and (resample_tilt or not is_tilted):
        return
    code = RESAMPLED if is_volume else str(series.code)
    ways = [WAYS[code]] if code in WAYS else []
    raise DataError(str(series.fault), where=f"series {series.uid}", how=ways, code=code)


def _plain(series: Series) -> str:
    return series.uid.partition(":")[0]


def _times(values: Iterable[float]) -> str:
    return "×".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        how = ["pip install 'umamba-seg[dicom]'"]
        raise MachineError("reading DICOM needs pydicom, which is not installed", how=how, code="no-pydicom") from None
    return pydicom


def _slices(path: Path) -> list[_Slice]:
    """Those of one file, none where it is no DICOM image."""
    try:
        with path.open("rb") as file:
            if not _looks_like_dicom(file):
                return []
            common, frames, syntax = _parsed(file, path)
            left = path.stat().st_size - file.tell()
    except OSError as fault:
        raise _damaged(path, fault.strerror or str(fault)) from fault
    if not common.get("Rows") or not common.get("Columns"):
        return []
    reason = _fault_of_file(path, common, len(frames), syntax, left)
    tags = [{**common, **frame} for frame in frames]
    return [_slice(path, index, one, _coding(tags[0]), len(tags), reason) for index, one in enumerate(tags)]


def _parsed(file: BinaryIO, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """What holds for all frames, what for each, and the transfer syntax; `file` is left where the pixels begin."""
    pydicom = _pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values against the standard that we do not use
            header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(TAGS))
            common, frames = _tags(header)
    except Exception as fault:  # pydicom's errors have no common class
        raise _damaged(path, f"{type(fault).__name__}: {fault}") from fault
    kind = pydicom.uid.UID(common.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if "Image Storage" in kind.name and not (common.get("Rows") and common.get("Columns")):
        raise _damaged(path, f"that of a {kind.name.removesuffix(' Storage')} ends before the size of the image")
    syntax = header.file_meta.get("TransferSyntaxUID") or pydicom.uid.ImplicitVRLittleEndian
    return common, frames, pydicom.uid.UID(syntax)


def _looks_like_dicom(file: BinaryIO) -> bool:
    """By the mark at byte 128, or by a first element of group 2 or 8, with which files without a mark begin."""
    start = file.read(132)
    file.seek(0)
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in (b"\2\0", b"\x08\0") and start[3] == 0)


def _damaged(path: Path, reason: str) -> DataError:
    how = ["copy or fetch the file again", "move it out of the folder if it does not belong to the series"]
    return DataError(f"the DICOM header cannot be read: {reason}", where=str(path), how=how, code="damaged-header")


def _tags(header: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What holds for the whole file, and what for each frame. Functional groups are flattened: no name is in two."""
    common = {element.keyword: element.value for element in header if element.VR != "SQ"}
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        common |= _flat(group)
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    count = int(common.get("NumberOfFrames") or 1)
    if count > 1 and not groups:
        common.pop("ImagePositionPatient", None)  # of the first frame; where the others are is not told
    frames = [_flat(group) for group in groups]
    return common, (frames + [{}] * count)[:count]


def _flat(group: Any) -> dict[str, Any]:
    inner = [element.value[0] for element in group if element.VR == "SQ" and element.value]
    return {element.keyword: element.value for item in inner for element in item}


def _fault_of_file(path: Path, tags: Mapping[str, Any], frames: int, syntax: Any, left: int) -> tuple[str, str] | None:
    samples, colours = int(tags.get("SamplesPerPixel") or 1), str(tags.get("PhotometricInterpretation", ""))
    if str(tags.get("Modality")) == "SEG":
        return "not-an-image", "it is a segmentation"
    if samples > 1 or not colours.startswith("MONOCHROME"):
        return "colour", f"its pixels are coloured, {colours or f'{samples} samples each'}"
    if colours != "MONOCHROME2":  # SimpleITK would turn the numbers themselves around, before the rescaling
        return "inverted", f"its shades are stored from white to black, {colours}"
    if syntax not in UNCOMPRESSED | DECODED and not _is_decoded(path):
        return "compressed-syntax", f"its pixels are stored as {syntax.name}, which SimpleITK cannot read"
    if syntax not in UNCOMPRESSED:
        return None
    needed = math.ceil(int(tags["Rows"]) * int(tags["Columns"]) * frames * int(tags.get("BitsAllocated") or 16) / 8)
    found = max(left - (8 if syntax.is_implicit_VR else 12), 0)  # tag and length come before
    if found < needed:
        return "cut-off", f"{path.name} is cut off: {needed} bytes of pixels expected, {found} found"
    return None


def _is_decoded(path: Path) -> bool:
    """Whether SimpleITK decodes a rare compression: it depends on its version, which has no list of them."""
    import SimpleITK

    try:
        SimpleITK.ReadImage(str(path))
    except RuntimeError:
        return False
    return True


def _slice(
    path: Path, frame: int, tags: Mapping[str, Any], first: Coding, frames: int, fault: tuple[str, str] | None
) -> _Slice:
    spacing, orientation = _numbers(tags, "PixelSpacing", 2), _numbers(tags, "ImageOrientationPatient", 6)
    return _Slice(
        path,
        frame,
        frames,
        tags,
        (int(tags["Columns"]), int(tags["Rows"])),
        (spacing[1], spacing[0]) if spacing and min(spacing) > 0 else None,  # DICOM tells the distance of rows first
        _axes(orientation) if orientation else None,
        _numbers(tags, "ImagePositionPatient", 3),
        _coding(tags),
        first,
        fault,
    )


def _coding(tags: Mapping[str, Any]) -> Coding:
    slope, intercept = tags.get("RescaleSlope"), tags.get("RescaleIntercept")
    return Coding(
        1.0 if slope in (None, "") else float(slope),
        0.0 if intercept in (None, "") else float(intercept),
        bool(tags.get("PixelRepresentation")),
        int(tags.get("BitsStored") or 16),
    )


def _numbers(tags: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    value = tags.get(name)
    if value is None or isinstance(value, (str, float)) or len(value) != count:
        return None
    numbers = tuple(float(x) for x in value)
    return numbers if all(map(math.isfinite, numbers)) else None


def _axes(cosines: tuple[float, ...]) -> np.ndarray | None:
    """x, y and their normal as columns, made exactly orthogonal; None where the header's are far from it."""
    x, y = np.array(cosines[:3]), np.array(cosines[3:])
    if not np.allclose([x @ x, y @ y, x @ y], [1, 1, 0], atol=0.01):
        return None
    x = x / np.linalg.norm(x)
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _grouped(slices: Iterable[_Slice], key: Callable[[_Slice], Hashable]) -> dict[Any, list[_Slice]]:
    groups: dict[Any, list[_Slice]] = {}
    for one in slices:
        groups.setdefault(key(one), []).append(one)
    return groups


def _volumes(slices: Sequence[_Slice]) -> list[_Volume]:
    """The volumes of one series: slices of one size, spacing and orientation, parted further where positions clash."""
    alike: list[list[_Slice]] = []
    for one in slices:
        group = next((group for group in alike if _are_alike(group[0], one)), None)
        if group is None:
            alike.append([one])
        else:
            group.append(one)
    are_mixed = len(alike) > 1
    marks = [(("orientation", _orientation(group[0])),) if are_mixed else () for group in alike]
    return [part for group, mark in zip(alike, marks, strict=True) for part in _parted(_Volume(tuple(group), mark))]


def _are_alike(a: _Slice, b: _Slice) -> bool:
    if a.size != b.size or (a.path != b.path and max(a.frames, b.frames) > 1):  # a file of many frames is by itself
        return False
    return _near(a.axes, b.axes, atol=SAME_DIRECTION) and _near(a.spacing, b.spacing, rtol=SAME_SPACING)


def _near(a: Any, b: Any, *, rtol: float = 0, atol: float = 0) -> bool:
    return a is b if a is None or b is None else np.allclose(a, b, rtol=rtol, atol=atol)


def _orientation(one: _Slice) -> str:
    if one.axes is None:
        return ""
    return ("sagittal", "coronal", "axial")[int(np.abs(one.axes[:, 2]).argmax())]


def _parted(volume: _Volume) -> list[_Volume]:
    """The volume, or those into which the first header value of `APART` parts it that makes its slices clash less."""
    clashes = _clashes(volume.slices)
    if not clashes:
        return [volume]
    for name in APART:
        parts = _grouped(volume.slices, lambda one, name=name: str(one.tags.get(name, "")))  # type: ignore[misc]
        if len(parts) == 1 or min(map(len, parts.values())) == 1:
            continue
        if sum(map(_clashes, parts.values())) < clashes:
            return [
                part
                for value in sorted(parts, key=_by_number)
                for part in _parted(_Volume(tuple(parts[value]), (*volume.marks, (name, value))))
            ]
    return [volume]


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _clashes(slices: Sequence[_Slice]) -> int:
    """How many neighbours do not lie one step apart on a line."""
    stack = _stack(slices)
    if stack is None or len(slices) < 2:
        return 0
    steps, drift = np.diff(stack.along), np.diff(stack.sideways, axis=0)
    is_off = np.abs(steps - stack.step) > 2 * stack.slack
    is_aside = np.linalg.norm(drift - np.median(drift, axis=0), axis=1) > stack.pixel
    return int(np.count_nonzero((steps <= SAME_MM) | is_off | is_aside))


def _stack(slices: Sequence[_Slice]) -> _Stack | None:
    """The slices in order, None where one has no place."""
    axes = slices[0].axes
    positions = [one.position for one in slices if one.position is not None]
    if axes is None or slices[0].spacing is None or len(positions) < len(slices):
        return None
    points = np.array(positions)
    along = points @ axes[:, 2]
    order = np.argsort(along, kind="stable")
    return _Stack(tuple(slices[index] for index in order), axes, points[order], along[order])


def _described(uid: str, volumes: Sequence[_Volume]) -> list[Series]:
    rivals = [one for one in volumes if len(one.slices) > 1 and not _is_localiser(one)]
    names = [f"{uid}:{number}" if len(volumes) > 1 else uid for number in range(1, len(volumes) + 1)]
    return [_series(name, volume, rivals) for name, volume in zip(names, volumes, strict=True)]


def _series(uid: str, volume: _Volume, rivals: Sequence[_Volume]) -> Series:
    first, stack = volume.slices[0], _stack(volume.slices)
    faults = [_fault(volume, stack)]
    if faults == [None]:
        faults = [_doubt(volume, rivals), _tilt(stack)]  # both may be: an echo of a tilted volume
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


def _is_localiser(volume: _Volume) -> bool:
    tags = volume.slices[0].tags
    kinds = [str(kind).upper() for name in ("ImageType", "FrameType") for kind in _listed(tags.get(name))]
    return "LOCALIZER" in kinds


def _listed(value: Any) -> Sequence[Any]:
    return () if value is None else [value] if isinstance(value, str) else value


def _fault(volume: _Volume, stack: _Stack | None) -> tuple[str, str] | None:
    """What keeps it from being a volume, as a code and a sentence."""
    if faults := [one.fault for one in volume.slices if one.fault]:
        return faults[0]
    if stack is None:
        return "no-geometry", f"its header lacks {_lacking(volume.slices)}"
    if len(volume.slices) == 1:
        return None
    return _doubled(stack) or _missing(stack) or _uneven(stack)


def _lacking(slices: Sequence[_Slice]) -> str:
    lacks = {
        "ImagePositionPatient": any(one.position is None for one in slices),
        "ImageOrientationPatient": any(one.axes is None for one in slices),
        "PixelSpacing": any(one.spacing is None for one in slices),
    }
    return ", ".join(name for name, is_lacking in lacks.items() if is_lacking) + ", or it makes no sense"


def _doubled(stack: _Stack) -> tuple[str, str] | None:
    at = np.flatnonzero(np.diff(stack.along) <= SAME_MM)
    if not len(at):
        return None
    first, second = stack.slices[at[0]], stack.slices[at[0] + 1]
    names = [one.path.name if one.frames == 1 else f"frame {one.frame + 1}" for one in (first, second)]
    places = len(np.unique(np.round(stack.along[at] / SAME_MM)))
    more = f", and so at {places - 1} other positions" if places > 1 else ""
    return "doubled-slices", f"several slices lie at {_mm(stack.along[at[0]])}: {names[0]} and {names[1]}{more}"


def _missing(stack: _Stack) -> tuple[str, str] | None:
    """Gaps of whole steps in an otherwise even stack."""
    steps = np.diff(stack.along) / stack.step
    if np.abs(steps - np.round(steps)).max() > 2 * stack.slack / stack.step or steps.max() < 1.5:
        return None
    gaps = [
        f"{round(steps[at]) - 1} between {_mm(stack.along[at])} and {_mm(stack.along[at + 1])}"
        for at in np.flatnonzero(steps > 1.5)
    ]
    told = ", ".join(gaps[:3]) + (f", and {len(gaps) - 3} gaps more" if len(gaps) > 3 else "")
    return "missing-slices", f"slices are missing: {told}, where the others lie {_mm(stack.step)} apart"


def _uneven(stack: _Stack) -> tuple[str, str] | None:
    steps, share = np.diff(stack.along), np.linspace(0, 1, len(stack.along))
    off = np.abs(stack.along - stack.along[0] - share * stack.length)
    if off.max() > stack.slack:
        worst = int(np.abs(steps - stack.step).argmax())
        return "uneven-slices", (
            f"its slices lie between {_mm(steps.min())} and {_mm(steps.max())} apart; "
            f"from {_mm(stack.along[worst])} to {_mm(stack.along[worst + 1])} it is {_mm(steps[worst])}"
        )
    aside = np.linalg.norm(stack.sideways - np.outer(share, stack.sideways[-1]), axis=1)
    if aside.max() > SIDEWAYS * stack.pixel:
        at = _mm(stack.along[int(aside.argmax())])
        return "uneven-slices", f"its slices lie on no line: that at {at} is {_mm(aside.max())} off to a side"
    return None


def _mm(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:g} mm"  # + 0.0, since -0 is no position


def _doubt(volume: _Volume, rivals: Sequence[_Volume]) -> tuple[str, str] | None:
    """Why a volume is not taken unless it is named."""
    if _is_localiser(volume):
        return "localiser", "it is a localiser"
    if len(volume.slices) == 1:
        return "single-slice", "it is a single slice"
    if len(rivals) == 1:
        return None
    if not all(_near(rival.slices[0].axes, volume.slices[0].axes, atol=SAME_DIRECTION) for rival in rivals):
        return "mixed-orientation", f"its series holds {len(rivals)} volumes, of different orientations"
    if any(name.startswith(("Echo", "EffectiveEcho")) for name, _ in volume.marks):
        return "multi-echo", f"its series holds {len(rivals)} volumes, of different echoes"
    return "several-volumes", f"its series holds {len(rivals)} volumes"


def _tilt(stack: _Stack | None) -> tuple[str, str] | None:
    if stack is None or np.linalg.norm(stack.sideways[-1]) <= SIDEWAYS * stack.pixel:
        return None
    aside = float(np.linalg.norm(stack.sideways[-1]))
    angle = math.degrees(math.atan2(aside, stack.length))
    return RESAMPLED, f"the gantry was tilted by {angle:.1f}°: the slices drift sideways by {_mm(aside)}"


def _step(first: _Slice, stack: _Stack | None) -> float:
    """The distance of slices; of a single slice, how thick it is."""
    if stack is not None and stack.step:
        mean = stack.length / (len(stack.slices) - 1)
        return mean if abs(mean - stack.step) <= stack.slack else stack.step
    told = [first.tags.get(name) for name in ("SpacingBetweenSlices", "SliceThickness")]
    return next((float(x) for x in told if x and float(x) > 0), 1.0)


def _source(slices: Sequence[_Slice], stack: _Stack | None) -> Source:
    ordered = slices if stack is None else stack.slices
    files, frames = tuple(one.path for one in ordered), tuple(one.frame for one in ordered)
    codings = tuple(one.coding for one in ordered)
    if stack is None:
        return Source(files, frames, codings, slices[0].first_coding)
    lean = stack.sideways[-1] / stack.length if _tilt(stack) and stack.length else np.zeros(3)
    origin, direction = stack.points[0].tolist(), stack.axes.ravel().tolist()
    return Source(files, frames, codings, slices[0].first_coding, tuple(origin), tuple(direction), tuple(lean.tolist()))


def _pixels(source: Source) -> "SimpleITK.Image":
    """Without geometry, which SimpleITK takes from too little: of enhanced files it misses even the spacing."""
    import SimpleITK

    if len(set(source.files)) == 1:
        return _frames(SimpleITK.ReadImage(str(source.files[0])), source)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in source.files])
    if len(set(source.codings)) > 1:  # else the first file decides for all: fractions and signs would be lost
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return reader.Execute()


def _frames(image: "SimpleITK.Image", source: Source) -> "SimpleITK.Image":
    """The frames of the volume in order. SimpleITK has rescaled all as the first of the file says."""
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(image)
    first, codings = source.first_coding, source.codings
    if source.frames == tuple(range(len(array))) and set(codings) == {first}:
        return image
    array = array[list(source.frames)]
    if set(codings) != {first}:
        slope = np.array([one.slope for one in codings])[:, None, None]
        intercept = np.array([one.intercept for one in codings])[:, None, None]
        array = ((array - first.intercept) / first.slope * slope + intercept).astype(np.float32)
    return SimpleITK.GetImageFromArray(array)


def _upright(image: "SimpleITK.Image", lean: np.ndarray) -> "SimpleITK.Image":
    """Shear a volume whose slices drift by `lean` into a grid that holds them all; slices stay where they are."""
    import SimpleITK

    axes = np.array(image.GetDirection()).reshape(3, 3)
    origin, spacing, size = (np.array(x) for x in (image.GetOrigin(), image.GetSpacing(), image.GetSize()))
    drift = axes[:, :2].T @ lean * (size[2] - 1) * spacing[2] / spacing[:2]  # in pixels, from first slice to last
    grown = np.ceil(np.abs(drift) - 1e-6).astype(int)  # whole pixels, so that the first slice is not interpolated
    start = np.where(drift < 0, -grown, 0) * spacing[:2]
    shear = SimpleITK.AffineTransform(3)
    shear.SetCenter(origin.tolist())
    shear.SetMatrix((np.eye(3) - np.outer(lean, axes[:, 2])).ravel().tolist())
    moved = SimpleITK.Resample(
        image,
        [int(size[0] + grown[0]), int(size[1] + grown[1]), int(size[2])],
        shear,
        SimpleITK.sitkLinear,
        (origin + axes[:, :2] @ start).tolist(),
        image.GetSpacing(),
        image.GetDirection(),
        float(SimpleITK.GetArrayViewFromImage(image).min()),
        SimpleITK.sitkFloat64,
    )
    is_whole = image.GetPixelID() not in (SimpleITK.sitkFloat32, SimpleITK.sitkFloat64)
    return SimpleITK.Cast(SimpleITK.Round(moved) if is_whole else moved, image.GetPixelID())  # a cast alone cuts off

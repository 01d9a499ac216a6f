"""The slices of a file, from its header, and what keeps its pixels from being read."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from umamba_seg.errors import DataError, MachineError

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


@dataclass(frozen=True, slots=True)
class Coding:
    """How numbers are stored: value = slope × number + intercept."""

    slope: float
    intercept: float
    is_signed: bool
    bits: int


@dataclass(frozen=True, slots=True)
class Slice:
    """What a header tells of one slice; None for what it does not tell, or not in a way that makes sense."""

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


def slices_of(path: Path) -> list[Slice]:
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


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        how = ["pip install 'umamba-seg[dicom]'"]
        raise MachineError("reading DICOM needs pydicom, which is not installed", how=how, code="no-pydicom") from None
    return pydicom


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
) -> Slice:
    spacing, orientation = _numbers(tags, "PixelSpacing", 2), _numbers(tags, "ImageOrientationPatient", 6)
    return Slice(
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

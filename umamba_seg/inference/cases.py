"""The images to segment: which files make a case, and what keeps a case from being segmented."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umamba_seg.datasets import nifti
from umamba_seg.errors import DataError, UsageError
from umamba_seg.workspace import read_json

PICTURES = (".png", ".bmp", ".tif")


@dataclass(frozen=True, slots=True)
class Case:
    """One image.

    Args:
        name: Its name without channel and ending.
        files: One for each channel, in the model's order; those that are not there too.
        target: The label map to write.
    """

    name: str
    files: tuple[Path, ...]
    target: Path


def all_cases(inputs: Sequence[Path], output: Path, endings: Sequence[str], channels: Sequence[str]) -> list[Case]:
    """The cases of several files, folders and JSON files.

    Args:
        inputs: Images, folders of them, or JSON files with the files of each case by its name.
        output: Folder for the label maps, or the name of the only one.
        endings: What can be read, the model's own first.
        channels: Names of the images of a case.
    """
    found = [
        case
        for path in inputs
        for case in (
            _listed_cases(path, output, endings[0], channels)
            if path.suffix == ".json"
            else find_cases(path, output, _ending_in(path, endings), channels, endings[0])
        )
    ]
    if twice := sorted(name for name, count in Counter(case.name for case in found).items() if count > 1):
        what = f"{len(twice)} names occur twice, the first is {twice[0]}"
        raise UsageError(what, where="-i", how=["segment the folders one by one"], code="same-name")
    return found


def _ending_in(path: Path, endings: Sequence[str]) -> str:
    """The first ending that occurs."""
    names = [file.name for file in path.iterdir()] if path.is_dir() else [path.name]
    return next((ending for ending in endings if any(name.endswith(ending) for name in names)), endings[0])


def _listed_cases(path: Path, output: Path, ending: str, channels: Sequence[str]) -> list[Case]:
    listed = read_json(path)
    cases = []
    for name, files in listed.items():
        if not isinstance(files, list) or len(files) != len(channels):
            what = f"{name} must be a list of {len(channels)} files ({', '.join(channels)})"
            raise UsageError(what, where=str(path), code="bad-list")
        cases.append(Case(name, tuple(path.parent / file for file in files), output / f"{name}{ending}"))
    return cases


def find_cases(
    inputs: Path, output: Path, ending: str, channels: Sequence[str], written: str | None = None
) -> list[Case]:
    """The cases of a folder, or the one of a file. Models of one channel take names without `_0000` too.

    Args:
        inputs: The folder or file.
        output: Folder for the label maps, or the name of the only one.
        ending: Of images.
        channels: Names of the images of a case.
        written: Ending of label maps; that of images unless given.
    """
    written = written or ending
    if not inputs.exists():
        raise DataError("there is no such image or folder", where=str(inputs), code="no-input")
    files = sorted(path for path in inputs.iterdir() if path.name.endswith(ending)) if inputs.is_dir() else [inputs]
    files = [path for path in files if path.name.endswith(ending)]
    if not files:
        found = sorted({"".join(path.suffixes) for path in (inputs.iterdir() if inputs.is_dir() else [inputs])})
        what = f"the model reads {ending} images; found {', '.join(found) or 'nothing'}"
        raise DataError(what, where=str(inputs), how=[f"convert the images to {ending}"], code="no-images")
    names: dict[str, tuple[Path, ...]]
    if len(channels) == 1 or _are_colours(files, ending, channels):
        names = {path.name.removesuffix(ending).removesuffix("_0000"): (path,) for path in files}
    else:
        stems = sorted({path.name.removesuffix(ending)[:-5] for path in files})
        names = {
            stem: tuple(files[0].parent / f"{stem}_{index:04d}{ending}" for index in range(len(channels)))
            for stem in stems
        }
    if inputs.is_file() and output.name.endswith(written):
        return [Case(name, files, output) for name, files in names.items()]
    if output.is_file():
        raise UsageError("the output must be a folder", where=str(output), code="output-is-a-file")
    return [Case(name, files, output / f"{name}{written}") for name, files in names.items()]


def _are_colours(files: Sequence[Path], ending: str, channels: Sequence[str]) -> bool:
    """Whether each file holds all channels, as pictures of three or four colours do."""
    is_picture = ending in PICTURES and len(channels) in (3, 4)
    return is_picture and not any(path.name.endswith(f"_0001{ending}") for path in files)


def part_of(cases: list[Case], part: str | None) -> list[Case]:
    """`2/5` is every fifth case, from the second."""
    if part is None:
        return cases
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"a part is I/N such as 2/5; got {part!r}", where="--part", code="bad-part")
    return cases[int(number) - 1 :: int(count)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What strict reading showed of a case.

    Args:
        reason: Why it cannot be segmented; None where nothing speaks against it.
        voxels: Of each file that was read, (i, j, k); empty where a file is no NIfTI.
        is_plain: Whether those are what nnU-Net's reader would give: three axes, and no scaling in the header.
    """

    reason: str | None = None
    voxels: tuple[np.ndarray, ...] = ()
    is_plain: bool = False


def look(case: Case, channels: Sequence[str], dims: int) -> Seen:
    """Read a case strictly, to the last byte: nnU-Net's reader fills what is cut off with zeros, and NaN too."""
    expected = channels[:1] if _are_colours(case.files, case.files[0].suffix, channels) else channels
    if len(case.files) != len(expected):
        return Seen(f"the model needs {len(expected)} images ({', '.join(expected)}); got {len(case.files)}")
    missing = [channel for channel, path in zip(expected, case.files, strict=True) if not path.is_file()]
    if missing:
        return Seen(f"the model needs {', '.join(channels)}; this case lacks {', '.join(missing)}")
    voxels, is_plain = [], True
    for path in case.files:
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            return Seen()
        try:
            header, array = nifti.read(path)
        except nifti.UnreadableError as fault:
            return Seen(f"{path.name}: {fault}")
        except (OSError, MemoryError, ValueError) as fault:
            return Seen(f"{path.name}: {str(fault) or type(fault).__name__}")
        if reason := _fault(header, array, dims):
            return Seen(f"{path.name}: {reason}")
        voxels.append(array)
        is_plain &= array.ndim == 3 and header.slope in (0.0, 1.0) and not header.intercept
    if len({array.shape for array in voxels}) > 1:
        sizes = [f"{p.name} {'×'.join(map(str, a.shape))}" for p, a in zip(case.files, voxels, strict=True)]
        return Seen(f"its channels differ in size: {', '.join(sizes)}")
    return Seen(None, tuple(voxels), is_plain)


def _fault(header: nifti.Header, array: np.ndarray, dims: int) -> str | None:
    shape = list(header.shape)
    while len(shape) > dims and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3 or (dims == 3 and len(shape) < 3):
        return f"it has {len(shape)} axes, {'×'.join(map(str, header.shape))}; the model needs {dims}"
    bad = [x for x in header.pixdim[:3] if not (math.isfinite(x) and x > 0)]
    if bad or not np.isfinite(header.affine).all():
        return f"its spacing makes no sense: {[float(x) for x in header.pixdim[:3]]}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{int(np.count_nonzero(~np.isfinite(array)))} voxels are NaN or infinite"
    if array.dtype.kind == "c" or header.kind in nifti.WIDTHS:
        return "its voxels are complex or coloured"
    return None

"""Facts of single files: what is measured once, in a worker, so that rules need no image."""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from umamba_seg.datasets import nifti, pictures

COLOURED = ("la", "rgb", "rgba")
MOST_VALUES = 1000  # a label has few
AIR_HU, AIR_SHARE = -500.0, 0.9
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # SimpleITK's directions in NIfTI's


@dataclass(slots=True)
class FileFacts:
    """One image or label.

    Args:
        path: The file.
        fault: Why it cannot be read; then nothing else is known.
        shape: As stored, trailing axes of 1 too.
        affine: Voxel to mm.
        pixdim: Raw spacing; a header's own, which may make no sense.
        kind: NumPy's name of the voxel type; "rgb", "rgba".
        digest: Of shape and voxels.
        nonfinite: Voxels that are NaN or infinite.
        minimum: Of the others. So are `maximum` and `top_share`, the share of voxels at the type's limits.
        values: Of a label: how often each occurs; empty for an image.
        outside: Share of the label's foreground where an image is air, by channel; of a label only.
        forms: How far sform and qform are apart at most, in voxels; None where one is missing.
        has_form: Whether sform or qform is there.
        slope_is_odd: Whether the header's slope is not finite.
        units: Of length, as NIfTI counts them.
        colour: Of a picture: grey, RGB … So is `is_lossy`, whether grey levels were lost.
        side_car: Why the spacing of a TIFF volume is not known; empty where it is.
    """

    path: Path
    fault: str = ""
    shape: tuple[int, ...] = ()
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    pixdim: tuple[float, ...] = ()
    kind: str = ""
    digest: str = ""
    nonfinite: int = 0
    minimum: float = math.nan
    maximum: float = math.nan
    top_share: float = 0.0
    values: dict[float, int] = field(default_factory=dict)
    outside: dict[int, float] = field(default_factory=dict)
    forms: float | None = None
    has_form: bool = True
    slope_is_odd: bool = False
    units: int = 2
    colour: str = ""
    is_lossy: bool = False
    side_car: str = ""

    @property
    def name(self) -> str:
        """As findings name it: folder and file."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def is_coloured(self) -> bool:
        """Whether a voxel has several values."""
        return self.kind in COLOURED

    @property
    def spacing(self) -> tuple[float, ...]:
        """Of the first three axes, as the affine has it."""
        return tuple(float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def space(self) -> tuple[int, ...]:
        """The shape without trailing axes of 1, but with at least two."""
        shape = list(self.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        return tuple(shape)


@dataclass(slots=True)
class CaseFacts:
    """All files of a case."""

    case: str
    images: dict[int, FileFacts]
    label: FileFacts | None


def measure_case(
    case: str, images: dict[int, Path], label: Path | None, *, with_values: bool, is_ct: bool
) -> CaseFacts:
    """Read each file of a case once; never more than two volumes are in memory."""
    label_facts, foreground = None, None
    if label is not None:
        label_facts, array = measure(label, with_values, is_label=True)
        if array is not None and array.dtype.kind in "iufb":
            foreground = np.nan_to_num(array) > 0
        del array
    found = {}
    for number, path in images.items():
        found[number], array = measure(path, with_values, is_label=False)
        if label_facts is None or foreground is None or array is None or array.shape != foreground.shape:
            continue
        if foreground.any():
            inside = array[foreground]
            label_facts.outside[number] = float((inside < AIR_HU if is_ct else inside == 0).mean())
    return CaseFacts(case, found, label_facts)


def measure(path: Path, with_values: bool, *, is_label: bool) -> tuple[FileFacts, np.ndarray | None]:
    """One file's facts and voxels; where it cannot be read, why not."""
    try:
        facts, array = _read(path, with_values)
    except nifti.UnreadableError as fault:
        return FileFacts(path, fault=str(fault)), None
    except MemoryError:
        return FileFacts(path, fault="it does not fit into memory"), None
    except Exception as fault:  # a library's opinion of a broken file, in whatever form it comes
        reason = next((line for line in reversed(str(fault).splitlines()) if line.strip()), type(fault).__name__)
        return FileFacts(path, fault=reason.strip()[:200]), None
    if array is not None:
        _describe(facts, array, is_label=is_label)
    return facts, array


def _read(path: Path, with_values: bool) -> tuple[FileFacts, np.ndarray | None]:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        header, array = nifti.read(path) if with_values else (nifti.read_header(path), None)
        forms = None
        if header.qform is not None and header.sform is not None:
            forms = displacement(header.qform, header.sform, header.shape) / _smallest(header.sform)
        facts = FileFacts(
            path, shape=header.shape, affine=header.affine, pixdim=header.pixdim, kind=header.kind, forms=forms,
            has_form=header.qform is not None or header.sform is not None,
            slope_is_odd=not math.isfinite(header.slope), units=header.units,
        )  # fmt: skip
        return facts, array
    return _read_picture(path, with_values) if pictures.is_picture(path) else _read_by_itk(path)


def _read_picture(path: Path, with_values: bool) -> tuple[FileFacts, np.ndarray | None]:
    picture, array = pictures.read(path, with_values)
    kind = pictures.KINDS.get(picture.colour, "" if array is None else str(array.dtype))
    facts = FileFacts(
        path, shape=picture.shape, affine=np.diag([*picture.spacing, 1.0]), pixdim=picture.spacing, kind=kind,
        colour=picture.colour, is_lossy=picture.is_lossy, side_car=picture.side_car,
    )  # fmt: skip
    return facts, array


def _read_by_itk(path: Path) -> tuple[FileFacts, np.ndarray]:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    size, dims = image.GetSize(), image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[: min(dims, 3), : min(dims, 3)] = direction[:3, :3]
    affine[: min(dims, 3), 3] = image.GetOrigin()[:3]
    array = SimpleITK.GetArrayFromImage(image)
    colours = image.GetNumberOfComponentsPerPixel()
    kind = {3: "rgb", 4: "rgba"}.get(colours, str(array.dtype))
    if colours == 1:
        array = array.transpose(*range(array.ndim)[::-1])
    return FileFacts(path, shape=size, affine=LPS @ affine, pixdim=image.GetSpacing(), kind=kind), array


def _describe(facts: FileFacts, array: np.ndarray, *, is_label: bool) -> None:
    content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16)
    facts.digest = f"{content.hexdigest()} {array.shape}"
    if array.dtype.kind == "c" or not array.size:
        return
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        facts.nonfinite = int(array.size - np.count_nonzero(finite))
        numbers = array if not facts.nonfinite else array[finite]
    else:
        numbers = array
    if numbers.size:
        facts.minimum, facts.maximum = float(numbers.min()), float(numbers.max())
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        limits = np.iinfo(array.dtype)
        at_limit = np.count_nonzero(array == limits.max) + (np.count_nonzero(array == limits.min) if limits.min else 0)
        facts.top_share = at_limit / array.size
    if is_label:
        values, counts = np.unique(numbers, return_counts=True)
        kept = zip(values[:MOST_VALUES].tolist(), counts[:MOST_VALUES].tolist(), strict=True)
        facts.values = {float(value): int(count) for value, count in kept}


def displacement(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two grids put the centre of a corner voxel, at most, in mm."""
    size = [*shape[:3], 1, 1, 1][:3]
    corners = np.array([[i, j, k, 1] for i in (0, size[0] - 1) for j in (0, size[1] - 1) for k in (0, size[2] - 1)])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _smallest(affine: np.ndarray) -> float:
    return float(max(np.linalg.norm(affine[:3, :3], axis=0).min(), 1e-6))

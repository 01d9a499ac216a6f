"""Reading and writing images and labels in any format that nnU-Net takes, with where their voxels lie."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umamba_seg.datasets import nifti, pictures
from umamba_seg.datasets.check.facts import LPS
from umamba_seg.files import replacing

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".gipl")


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels and where they lie.

    Args:
        array: (i, j, k), with more axes where the file has them; coloured pictures are (y, x, colours).
        affine: (4, 4), voxel to mm in NIfTI's directions.
    """

    array: np.ndarray
    affine: np.ndarray


def read(path: Path) -> Volume:
    """An image or label as it is stored; of a palette the indices.

    Raises:
        UnreadableError: A NIfTI file is damaged or cut off.
    """
    name = path.name.lower()
    if name.endswith(NIFTI):
        header, array = nifti.read(path)
        return Volume(array, header.affine)
    if pictures.is_picture(path):
        picture, pixels = pictures.read(path)
        assert pixels is not None
        return Volume(pixels, np.diag([*picture.spacing, 1.0]))
    return _read_by_itk(path)


def write(path: Path, volume: Volume) -> None:
    """Put a volume in the place of whatever `path` is, a link too; what a link leads to stays as it is."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        content = _as_nifti(volume)
        _put(path, gzip.compress(content, 6, mtime=0) if name.endswith(".gz") else content)
    elif name.endswith(pictures.TIFF):
        _put(path, _as_tiff(volume.array))
    elif pictures.is_picture(path):
        _put(path, _as_picture(volume.array, path.suffix))
    else:
        _write_by_itk(path, volume)


def as_labels(array: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest type that holds them."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    return array.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _storable(array: np.ndarray) -> np.ndarray:
    """Truth as 0 and 1, and double precision, which scaling of voxels brings, as single where that loses nothing."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float64:
        single = array.astype(np.float32)
        return single if np.array_equal(single, array, equal_nan=True) else array
    return array


def _as_nifti(volume: Volume) -> bytes:
    import nibabel

    array = np.asarray(_storable(volume.array))
    made = nibabel.Nifti1Image(array, volume.affine, dtype=array.dtype)
    made.set_sform(volume.affine, code=1)
    made.set_qform(volume.affine, code=1)
    made.header.set_xyzt_units("mm")
    return bytes(made.to_bytes())


def _as_tiff(array: np.ndarray) -> bytes:
    import tifffile

    made = io.BytesIO()
    is_coloured = array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[-1] < min(array.shape[:2])
    tifffile.imwrite(made, array if is_coloured else _storable(array).T, compression="zlib")
    return made.getvalue()


def _as_picture(array: np.ndarray, ending: str) -> bytes:
    from PIL import Image

    made = io.BytesIO()
    stored = np.ascontiguousarray(array if array.ndim == 3 else _storable(array).T)
    Image.fromarray(stored).save(made, format=ending[1:].upper())
    return made.getvalue()


def _read_by_itk(path: Path) -> Volume:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    dims = image.GetDimension()
    affine = np.eye(4)
    used = min(dims, 3)
    directions = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[:used, :used], affine[:used, 3] = directions[:used, :used], image.GetOrigin()[:used]
    axes = tuple(range(dims))[::-1]
    return Volume(array.transpose(*axes, *range(dims, array.ndim)), LPS @ affine)


def _write_by_itk(path: Path, volume: Volume) -> None:
    import SimpleITK

    array, affine = volume.array, LPS @ volume.affine
    dims = min(array.ndim, 3)
    image = SimpleITK.GetImageFromArray(_storable(array).T)
    spacing = np.linalg.norm(affine[:dims, :dims], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:dims, :dims] / spacing).ravel().tolist())
    image.SetOrigin(affine[:dims, 3].tolist())
    part = path.with_name(f".part-{path.name}")
    try:
        SimpleITK.WriteImage(image, str(part), useCompression=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

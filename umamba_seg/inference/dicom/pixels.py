"""The voxels of a volume, in the scanner's units and where the patient was."""

from typing import TYPE_CHECKING

import numpy as np

from umamba_seg.errors import DataError
from umamba_seg.inference.dicom.series import Series, Source, refuse, times

if TYPE_CHECKING:
    import SimpleITK


def read_series(series: Series, *, resample_tilt: bool = False) -> "SimpleITK.Image":
    """The voxels in the scanner's units (HU in CT), where the headers place them.

    A tilted volume is resampled, linearly and within its slices alone, to a grid that holds all of it; what was not
    scanned takes the smallest value.

    Raises:
        DataError: The volume has a fault, or its pixels cannot be decoded.
    """
    refuse(series, resample_tilt)
    try:
        image = _pixels(series.source)
    except RuntimeError as fault:
        what = f"SimpleITK cannot read its pixels: {str(fault).strip().splitlines()[-1]}"
        raise DataError(what, where=str(series.source.files[0].parent), code="unreadable-pixels") from fault
    if image.GetSize() != series.size:
        what = f"its headers promise {times(series.size)} voxels; {times(image.GetSize())} were read"
        raise DataError(what, where=str(series.source.files[0].parent), code="unreadable-pixels")
    image.SetSpacing(series.spacing)
    image.SetOrigin(series.source.origin)
    image.SetDirection(series.source.direction)
    return _upright(image, np.array(series.source.lean)) if any(series.source.lean) else image


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

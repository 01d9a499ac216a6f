"""A DICOM folder as a case: its series become images as the model reads them, for as long as they are needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from umamba_seg.errors import DataError, UsageError
from umamba_seg.inference.cases import Case
from umamba_seg.inference.dicom.pixels import read_series
from umamba_seg.inference.dicom.series import choose, series_in


@contextmanager
def converted(
    folder: Path,
    output: Path,
    ending: str,
    channels: Sequence[str],
    wanted: Sequence[str] = (),
    resample_tilt: bool = False,
) -> Iterator[Case | None]:
    """The case of a folder; None where it holds no DICOM file.

    Args:
        folder: With the files, in sub-folders too.
        output: Folder for the label map, or its name.
        ending: Of the images that the model reads.
        channels: Names of the images of a case.
        wanted: UID of the series for each channel; may be left out where there is one channel and one volume.
        resample_tilt: Whether tilted volumes are resampled onto straight grids.

    Raises:
        DataError: No volume, several, or one with a fault.
        UsageError: The model reads no format that keeps the geometry, or needs other channels.
    """
    try:
        found = series_in(folder)
    except DataError as fault:
        if fault.code != "no-dicom":
            raise
        found = []
    if not found:
        yield None
        return
    if ending not in (".nii.gz", ".nii", ".nrrd", ".mha"):
        what = f"the model reads {ending} images, which do not keep the geometry of a DICOM series"
        raise UsageError(what, where=str(folder), code="no-geometry")
    if len(wanted or [""]) != len(channels):
        what = f"the model reads {len(channels)} images ({', '.join(channels)}); {len(wanted)} series are named"
        raise UsageError(what, where="--series", how=["name one for each, in this order"], code="wrong-channels")
    chosen = [choose(found, uid, resample_tilt=resample_tilt) for uid in (*wanted,) or (None,)]
    import SimpleITK

    name = folder.resolve().name
    with TemporaryDirectory(prefix="umamba-") as spare:
        files = []
        for channel, series in enumerate(chosen):
            files.append(Path(spare) / f"{name}_{channel:04d}{ending}")
            SimpleITK.WriteImage(read_series(series, resample_tilt=resample_tilt), str(files[-1]))
        target = output if output.name.endswith(ending) else output / f"{name}{ending}"
        yield Case(name, tuple(files), target)

"""What label maps hold: volume, place, pieces and, with the image, intensity of each class."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.errors import DataError
from umamba_seg.files import write_text


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one class in one label map.

    Args:
        label: Its value.
        name: As dataset.json has it, else the value.
        voxels: How many.
        ml: Their volume.
        centroid: In mm, in the image's own directions (left, posterior, superior).
        box: First and last voxel along (x, y, z).
        components: Pieces that do not touch, not even at corners.
        largest_share: Of the voxels in the largest piece.
        intensity: Mean and standard deviation in the image; None without one.
    """

    case: str
    label: int
    name: str
    voxels: int
    ml: float
    centroid: tuple[float, ...]
    box: tuple[tuple[int, int], ...]
    components: int
    largest_share: float
    intensity: tuple[float, float] | None = None


def statistics(
    label_map: Path, *, image: Path | None = None, names: Mapping[int, str] | None = None
) -> list[Statistics]:
    """One entry for each class that occurs, in the order of the values."""
    import SimpleITK

    labels = read_image(label_map)
    array = SimpleITK.GetArrayViewFromImage(labels)
    grey = None
    if image is not None:
        grey = SimpleITK.GetArrayViewFromImage(read := read_image(image))
        if grey.shape != array.shape:
            raise DataError(
                f"the image has {'×'.join(map(str, read.GetSize()))} voxels, the label map "
                f"{'×'.join(map(str, labels.GetSize()))}", where=str(image), code="shape-mismatch",
            )  # fmt: skip
    ml = float(np.prod(labels.GetSpacing())) / 1000
    case = label_map.name.split(".")[0]
    found = []
    for value in (int(x) for x in np.unique(array) if x > 0):
        mask = np.asarray(array == value)
        where = np.argwhere(mask)[:, ::-1]  # x, y, z
        pieces, largest = _pieces(mask)
        found.append(
            Statistics(
                case, value, (names or {}).get(value, str(value)), len(where), len(where) * ml,
                tuple(float(x) for x in labels.TransformContinuousIndexToPhysicalPoint(where.mean(0).tolist())),
                tuple((int(a), int(b)) for a, b in zip(where.min(0), where.max(0), strict=True)),
                pieces, largest / len(where),
                None if grey is None else (float(grey[mask].mean()), float(grey[mask].std())),
            )
        )  # fmt: skip
    return found


def write_table(rows: Sequence[Statistics], file: Path) -> None:
    """A CSV file with a line for each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["case", "label", "name", "voxels", "ml", "x", "y", "z", "components", "largest_share", "mean", "sd"]
    )
    for row in rows:
        grey = row.intensity or ("", "")
        writer.writerow(
            [row.case, row.label, row.name, row.voxels, row.ml, *row.centroid, row.components, row.largest_share, *grey]
        )
    write_text(file, text.getvalue())


def class_names(dataset_json: Path) -> dict[int, str]:
    """Names of classes by value; regions have none."""
    return class_names_of(json.loads(dataset_json.read_bytes()))


def class_names_of(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """The same of what the file holds."""
    labels = dataset_json.get("labels", {})
    return {value: name for name, value in labels.items() if isinstance(value, int)}


def read_image(path: Path) -> Any:
    """A SimpleITK image, or a sentence why not."""
    import SimpleITK

    try:
        return SimpleITK.ReadImage(str(path))
    except RuntimeError as fault:
        reason = str(fault).strip().splitlines()[-1]
        raise DataError(f"it cannot be read: {reason}", where=str(path), code="unreadable-image") from fault


def _pieces(mask: np.ndarray) -> tuple[int, int]:
    """How many pieces a mask has, and the voxels of the largest."""
    from scipy.ndimage import label

    numbered, count = label(mask, structure=np.ones((3,) * mask.ndim))
    return int(count), int(np.bincount(numbered.ravel())[1:].max())

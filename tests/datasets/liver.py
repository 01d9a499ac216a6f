"""A small data set without fault, and ways to break it."""

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from umamba_seg.datasets.findings import Report

CASES = ("case_1", "case_2", "case_3", "case_4", "case_5", "case_6")
SHAPE, SPACING = (8, 9, 10), (1.0, 1.5, 2.0)
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": len(CASES),
    "file_ending": ".nii.gz",
}


def affine(shift: float = 0.0) -> np.ndarray:
    made = np.diag([*SPACING, 1.0])
    made[:3, 3] = (-10.0 + shift, -12.0, 5.0)
    return made


def save(path: Path, array: np.ndarray, at: np.ndarray | None = None) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine() if at is None else at), path)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)


def label(seed: int = 0) -> np.ndarray:
    made = np.zeros(SHAPE, np.uint8)
    made[2:6, 2:6, 2:6] = 1
    made[3:5, 3:5, 3 : 5 + seed % 3] = 2
    return made


def found(report: Report) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(x.code, x.severity, x.cases) for x in report.findings}


def image_of(raw: Path, case: str = "case_3") -> Path:
    return raw / f"imagesTr/{case}_0000.nii.gz"


def label_of(raw: Path, case: str = "case_3") -> Path:
    return raw / f"labelsTr/{case}.nii.gz"


def relabel(raw: Path, change: Callable[[np.ndarray], np.ndarray], at: np.ndarray | None = None) -> None:
    save(label_of(raw), change(label(2)), at)


def reimage(raw: Path, change: Callable[[np.ndarray], np.ndarray], at: np.ndarray | None = None) -> None:
    save(image_of(raw), change(image(2)), at)


def describe(raw: Path, **changes: object) -> None:
    (raw / "dataset.json").write_text(json.dumps(DESCRIPTION | changes))


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def reheader(path: Path, at: int, form: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + form, content, at, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def nest(folder: Path) -> None:
    inner = folder.rename(folder.with_name("inner"))
    folder.mkdir()
    inner.rename(folder / folder.name)


def add_channel(raw: Path) -> None:
    shutil.copy(image_of(raw), raw / "imagesTr/case_3_0001.nii.gz")


def put(array: np.ndarray, value: float, dtype: type | None = None) -> np.ndarray:
    array = array.astype(dtype or array.dtype)
    array[0, 0, 0] = value
    return array


def sheared() -> np.ndarray:
    made = affine()
    made[0, 1] = 0.6
    return made


def flipped() -> np.ndarray:
    made = affine()
    made[0, 0] *= -1
    made[0, 3] *= -1
    return made

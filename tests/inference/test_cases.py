"""Which files make a case, and what keeps one from being segmented."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from umamba_seg.errors import DataError, UsageError
from umamba_seg.inference.cases import Case, find_cases, look, part_of


def save(path: Path, array: np.ndarray | None = None) -> Path:
    array = np.arange(8 * 9 * 10, dtype=np.float32).reshape(8, 9, 10) if array is None else array
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), path)
    return path


def reheader(path: Path, at: int, form: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + form, content, at, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def why_not(case: Case, channels, dims: int) -> str | None:
    return look(case, channels, dims).reason


def case_of(*files: Path) -> Case:
    return Case("a", files, Path("out/a.nii.gz"))


def test_names_lose_channel_and_ending(tmp_path):
    for name in ("a_0000.nii.gz", "b.nii.gz", "notes.txt"):
        (tmp_path / name).touch()

    cases = find_cases(tmp_path, Path("out"), ".nii.gz", ["CT"])

    assert [(case.name, case.target) for case in cases] == [
        ("a", Path("out/a.nii.gz")),
        ("b", Path("out/b.nii.gz")),
    ]


def test_several_channels_make_one_case_and_a_missing_one_is_told(tmp_path):
    save(tmp_path / "a_0000.nii.gz"), save(tmp_path / "a_0001.nii.gz"), save(tmp_path / "b_0000.nii.gz")

    whole, half = find_cases(tmp_path, Path("out"), ".nii.gz", ["T1", "T2"])

    assert why_not(whole, ["T1", "T2"], 3) is None
    assert why_not(half, ["T1", "T2"], 3) == "the model needs T1, T2; this case lacks T2"


def test_a_single_image_may_name_its_label_map(tmp_path):
    image = save(tmp_path / "a.nii.gz")

    (case,) = find_cases(image, Path("x/seg.nii.gz"), ".nii.gz", ["CT"])

    assert case.target == Path("x/seg.nii.gz")


def test_nothing_to_segment_is_told(tmp_path):
    (tmp_path / "a.dcm").touch()

    with pytest.raises(DataError, match=r"reads .nii.gz images; found .dcm"):
        find_cases(tmp_path, Path("out"), ".nii.gz", ["CT"])
    with pytest.raises(DataError, match="no such image"):
        find_cases(tmp_path / "none", Path("out"), ".nii.gz", ["CT"])


def test_parts_share_all_cases_and_each_only_once():
    cases = [case_of() for _ in range(7)]

    parts = [part_of(cases, f"{i}/3") for i in (1, 2, 3)]

    assert sorted(map(id, [case for part in parts for case in part])) == sorted(map(id, cases))
    assert part_of(cases, None) == cases


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_odd_parts_are_refused(part):
    with pytest.raises(UsageError, match="I/N"):
        part_of([], part)


BREAK = {
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-40]), "cut off"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "a web page": (lambda p: p.write_bytes(b"<!DOCTYPE html>"), "HTML"),
    "zero spacing": (lambda p: reheader(p, 80, "f", 0.0), "spacing makes no sense"),
    "huge": (lambda p: reheader(p, 42, "3h", 32000, 32000, 32000), "promises"),
    "nan": (lambda p: save(p, np.full((4, 4, 4), np.nan, np.float32)), "64 voxels are NaN"),
    "four axes": (lambda p: save(p, np.zeros((4, 4, 4, 2), np.float32)), "4 axes"),
    "flat": (lambda p: save(p, np.zeros((4, 4), np.float32)), "2 axes"),
}


@pytest.mark.parametrize("fault", BREAK)
def test_a_broken_image_is_told_in_one_line(tmp_path, fault):
    image = save(tmp_path / "a_0000.nii.gz")
    assert why_not(case_of(image), ["CT"], 3) is None
    break_it, words = BREAK[fault]
    break_it(image)

    reason = why_not(case_of(image), ["CT"], 3)

    assert words in reason
    assert "\n" not in reason


def test_channels_of_other_sizes_are_told(tmp_path):
    one, other = save(tmp_path / "a_0000.nii.gz"), save(tmp_path / "a_0001.nii.gz", np.zeros((3, 3, 3), np.float32))

    assert "differ in size" in why_not(case_of(one, other), ["T1", "T2"], 3)

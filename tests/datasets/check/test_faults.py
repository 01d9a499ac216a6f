"""Every fault is named with its case; a clean data set is left in peace."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.datasets.liver import (
    CASES,
    add_channel,
    affine,
    cut,
    describe,
    flipped,
    found,
    image,
    image_of,
    label,
    label_of,
    nest,
    put,
    reheader,
    reimage,
    relabel,
    save,
    sheared,
)  # fmt: skip
from tests.helpers import SHARED
from umamba_seg.datasets.check.run import check

C3 = ("case_3",)
FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, str, tuple[str, ...]]]] = {
    "json missing": (lambda r: (r / "dataset.json").unlink(), ("json-unreadable", "error", ())),
    "json comma": (lambda r: (r / "dataset.json").write_text('{"labels": {},}'), ("json-unreadable", "error", ())),
    "json no object": (lambda r: (r / "dataset.json").write_text("[]"), ("json-unreadable", "error", ())),
    "json keys": (lambda r: (r / "dataset.json").write_text('{"file_ending": ".nii.gz"}'), ("json-keys", "error", ())),
    "json count": (lambda r: describe(r, numTraining=7), ("json-count", "error", ())),
    "json swapped": (lambda r: describe(r, labels={"0": "background", "1": "liver"}), ("json-labels", "error", ())),
    "json gap": (lambda r: describe(r, labels={"background": 0, "liver": 1, "x": 3}), ("json-labels", "error", ())),
    "json twice": (
        lambda r: describe(r, labels={"background": 0, "liver": 1, "liver2": 1, "tumour": 2}),
        ("json-labels", "error", ()),
    ),
    "json ignore": (
        lambda r: describe(r, labels={"background": 0, "liver": 1, "tumour": 2, "ignore": 5}),
        ("json-ignore", "error", ()),
    ),
    "json regions": (
        lambda r: describe(r, labels={"background": 0, "whole": [1, 2], "core": [2]}),
        ("json-regions", "error", ()),
    ),
    "json region order": (
        lambda r: describe(
            r, labels={"background": 0, "core": [2], "whole": [1, 2]}, regions_class_order=[2, 1]
        ),
        ("json-region-order", "error", ()),
    ),
    "json channels": (lambda r: describe(r, channel_names={"1": "CT"}), ("json-channels", "warning", ())),
    "json reader": (lambda r: describe(r, overwrite_image_reader_writer="X"), ("json-reader", "warning", ())),
    "ct name": (lambda r: describe(r, channel_names={"0": "ct scan"}), ("ct-name", "warning", ())),
    "ending without dot": (lambda r: describe(r, file_ending="nii.gz"), ("file-ending", "error", ())),
    "ending of none": (lambda r: describe(r, file_ending=".mha"), ("file-ending", "error", ())),
    "empty folder": (
        lambda r: [file.unlink() for file in (r / "labelsTr").iterdir()], ("folder", "error", ())
    ),
    "nested folder": (
        lambda r: nest(r / "imagesTr"),
        ("folder", "error", ()),
    ),
    "channel missing": (
        lambda r: (describe(r, channel_names={"0": "CT", "1": "PET"}), add_channel(r)),
        ("channel-missing", "error", ("case_1",)),
    ),
    "channel extra": (
        lambda r: add_channel(r), ("channel-extra", "error", C3)
    ),
    "channel suffix": (lambda r: image_of(r).rename(r / "imagesTr/case_3.nii.gz"), ("channel-suffix", "error", C3)),
    "label suffix": (lambda r: label_of(r).rename(r / "labelsTr/case_3_0000.nii.gz"), ("channel-suffix", "error", C3)),
    "label missing": (lambda r: label_of(r).unlink(), ("label-missing", "error", C3)),
    "label orphan": (lambda r: image_of(r).unlink(), ("label-orphan", "warning", C3)),
    "other ending": (
        lambda r: save(r / "imagesTr/case_7_0000.nrrd.nii", image(9)) , ("file-ending", "error", ("case_7_0000.nrrd",))
    ),
    "link broken": (
        lambda r: image_of(r).unlink() or image_of(r).symlink_to("nowhere.nii.gz"), ("link-broken", "error", C3)
    ),
    "link circular": (
        lambda r: image_of(r).unlink() or image_of(r).symlink_to(image_of(r).name), ("link-broken", "error", C3)
    ),
    "apple double": (
        lambda r: (r / "imagesTr/._case_3_0000.nii.gz").write_bytes(b"x"), ("stray-file", "error", ())
    ),
    "copy": (lambda r: shutil.copy(image_of(r), r / "imagesTr/case_3_0000 (1).nii.gz"), ("stray-file", "error", ())),
    "awkward name": (
        lambda r: (image_of(r).rename(r / "imagesTr/käse_0000.nii.gz"), label_of(r).rename(r / "labelsTr/käse.nii.gz")),
        ("name-awkward", "warning", ("käse",)),
    ),
    "collision": (
        lambda r: (save(r / "imagesTr/CASE_3_0000.nii.gz", image(9)), save(r / "labelsTr/CASE_3.nii.gz", label(1))),
        ("name-collision", "warning", ("CASE_3", "case_3")),
    ),
    "truncated": (lambda r: cut(label_of(r), 0.6), ("unreadable", "error", C3)),
    "empty file": (lambda r: image_of(r).write_bytes(b""), ("unreadable", "error", C3)),
    "html": (lambda r: image_of(r).write_bytes(b"<!DOCTYPE html>"), ("unreadable", "error", C3)),
    "lfs pointer": (lambda r: image_of(r).write_bytes(b"version https://git-lfs"), ("unreadable", "error", C3)),
    "not compressed": (
        lambda r: image_of(r).write_bytes(gzip.decompress(image_of(r).read_bytes())), ("unreadable", "error", C3)
    ),
    "bad checksum": (
        lambda r: image_of(r).write_bytes(image_of(r).read_bytes()[:-8] + b"\0" * 8), ("unreadable", "error", C3)
    ),
    "short data": (
        lambda r: image_of(r).write_bytes(gzip.compress(gzip.decompress(image_of(r).read_bytes())[:-100])),
        ("unreadable", "error", C3),
    ),
    "huge header": (lambda r: reheader(image_of(r), 42, "3h", 32000, 32000, 32000), ("unreadable", "error", C3)),
    "negative dims": (lambda r: reheader(image_of(r), 42, "h", -5), ("unreadable", "error", C3)),
    "no dims": (lambda r: reheader(image_of(r), 40, "h", 99), ("unreadable", "error", C3)),
    "unknown type": (lambda r: reheader(image_of(r), 70, "h", 77), ("unreadable", "error", C3)),
    "odd offset": (lambda r: reheader(image_of(r), 108, "f", float("nan")), ("unreadable", "error", C3)),
    "shape": (lambda r: relabel(r, lambda x: x[:-1]), ("shape-mismatch", "error", C3)),
    "spacing": (lambda r: relabel(r, lambda x: x, np.eye(4)), ("spacing-mismatch", "error", C3)),
    "origin": (lambda r: relabel(r, lambda x: x, affine(5.0)), ("origin-mismatch", "error", C3)),
    "noise": (lambda r: relabel(r, lambda x: x, affine(0.2)), ("geometry-noise", "warning", C3)),
    "direction": (lambda r: relabel(r, lambda x: x, flipped()), ("direction-mismatch", "error", C3)),
    "sheared": (
        lambda r: (reimage(r, lambda x: x, sheared()), relabel(r, lambda x: x, sheared())),
        ("nonorthonormal", "error", C3),
    ),
    "zero spacing": (
        lambda r: (reheader(image_of(r), 80, "f", 0.0), reheader(label_of(r), 80, "f", 0.0)),
        ("spacing-invalid", "error", C3),
    ),
    "nan spacing": (lambda r: reheader(image_of(r), 84, "f", float("nan")), ("spacing-invalid", "error", C3)),
    "spacing outlier": (
        lambda r: (reimage(r, lambda x: x, np.diag([9, 9, 9, 1])), relabel(r, lambda x: x, np.diag([9, 9, 9, 1]))),
        ("spacing-outlier", "warning", C3),
    ),
    "four axes": (lambda r: reimage(r, lambda x: np.stack([x, x], -1)), ("wrong-dimension", "error", C3)),
    "complex": (lambda r: reimage(r, lambda x: x.astype(np.complex64)), ("colour-volume", "error", C3)),
    "nan": (lambda r: reimage(r, lambda x: put(x, np.nan, np.float32)), ("image-nonfinite", "error", C3)),
    "constant": (lambda r: reimage(r, lambda x: x * 0), ("image-empty", "error", C3)),
    "ct units": (lambda r: reimage(r, lambda x: np.abs(x) // 4), ("ct-units", "warning", C3)),
    "sentinel": (lambda r: reimage(r, lambda x: put(x, 3e38, np.float32)), ("image-overflow", "warning", C3)),
    "wrapped": (lambda r: reimage(r, lambda x: put(x, 32767)), ("image-overflow", "warning", C3)),
    "image is label": (lambda r: reimage(r, lambda x: (x % 3).astype(np.uint8)), ("image-is-label", "warning", C3)),
    "label nan": (lambda r: relabel(r, lambda x: put(x, np.nan, np.float32)), ("label-nonfinite", "error", C3)),
    "mask of 255": (lambda r: relabel(r, lambda x: (x > 0).astype(np.uint8) * 255), ("label-undeclared", "error", C3)),
    "interpolated": (
        lambda r: relabel(r, lambda x: (x + np.roll(x, 1, 0)).astype(np.float32) / 2), ("label-noninteger", "error", C3)
    ),
    "negative": (lambda r: relabel(r, lambda x: put(x, -56, np.int8)), ("label-negative", "error", C3)),
    "label empty": (lambda r: relabel(r, lambda x: x * 0), ("label-empty", "warning", C3)),
    "class absent": (
        lambda r: describe(r, labels={"background": 0, "liver": 1, "tumour": 2, "cyst": 3}),
        ("class-absent", "warning", ()),
    ),
    "label of another": (
        lambda r: (save(image_of(r), np.where(label() > 0, -900, image(2)).astype(np.int16))),
        ("label-outside", "warning", C3),
    ),
    "same image": (
        lambda r: shutil.copy(image_of(r), image_of(r, "case_4")),
        ("duplicate-image", "warning", ("case_3", "case_4")),
    ),
}  # fmt: skip


def test_a_clean_data_set_is_left_in_peace(raw):
    assert check(raw).findings == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_case(raw, fault):
    break_it, expected = FAULTS[fault]
    break_it(raw)

    report = check(raw)

    assert expected in found(report), found(report)
    assert report.ok == (not any(severity == "error" for _, severity, _ in found(report)))
    assert all(finding.message for finding in report.findings)


@pytest.mark.parametrize(
    "fault",
    [
        "link broken",
        "ending without dot",
        "truncated",
        "shape",
        "origin",
        "label missing",
        "mask of 255",
        "nan",
        "huge header",
    ],
)
def test_one_fault_is_one_finding(raw, fault):
    break_it, expected = FAULTS[fault]
    break_it(raw)

    assert {code for code, _, _ in found(check(raw))} == {expected[0]}


@pytest.mark.parametrize("fault", ["channel suffix", "link broken"])
def test_a_file_at_fault_is_not_missed_as_well(raw, fault):
    FAULTS[fault][0](raw)

    assert len(check(raw).findings) == 1


def test_a_file_of_another_format_is_not_missed_as_well(raw):
    label_of(raw).rename(raw / "labelsTr/case_3.mha")

    assert found(check(raw)) == {("file-ending", "error", C3)}


def test_few_cases_are_told(raw):
    for case in CASES[2:]:
        image_of(raw, case).unlink()
        label_of(raw, case).unlink()
    describe(raw, numTraining=2)

    assert ("few-cases", "warning", ()) in found(check(raw))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(raw):
    image_of(raw).chmod(0)

    assert ("permission", "error", C3) in found(check(raw))


def test_folds_are_looked_at(raw, tmp_path):
    describe(raw, patients={"case_1": "A", "case_2": "A"})
    splits = tmp_path / "splits_final.json"
    folds = [{"train": ["case_1", "case_3", "ghost"], "val": ["case_2", "case_3"]}]
    splits.write_text(json.dumps(folds))

    codes = found(check(raw, preprocessed=tmp_path))

    assert ("splits", "error", ("ghost",)) in codes
    assert ("splits", "error", C3) in codes
    assert ("patient-leak", "error", ()) in codes
    assert ("splits", "warning", ("case_1", "case_4", "case_5", "case_6")) in codes


def test_an_accepted_finding_stays_accepted(raw, tmp_path):
    FAULTS["origin"][0](raw)
    assert not check(raw, preprocessed=tmp_path).ok

    accepted = check(raw, preprocessed=tmp_path, accept=["origin-mismatch:case_3"])

    assert accepted.ok
    assert [finding.code for finding in accepted.accepted] == ["origin-mismatch"]
    assert check(raw, preprocessed=tmp_path).ok


def test_a_quick_look_reads_names_and_headers_only(raw):
    FAULTS["nan"][0](raw)
    FAULTS["label missing"][0](raw)

    assert {code for code, _, _ in found(check(raw, quick=True))} == {"label-missing"}


def test_reading_in_parallel_finds_the_same(raw):
    FAULTS["truncated"][0](raw)

    assert found(check(raw, processes=2)) == found(check(raw))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_voxels_are_those_that_nibabel_reads(tmp_path, dtype):
    from umamba_seg.datasets.nifti import read

    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(dtype)
    made = nibabel.Nifti1Image(array, affine())
    made.header.set_slope_inter(2.0, -1.0) if dtype == np.int16 else None
    nibabel.save(made, tmp_path / "x.nii")
    expected = nibabel.load(tmp_path / "x.nii")

    header, voxels = read(tmp_path / "x.nii")

    np.testing.assert_allclose(voxels, expected.get_fdata())
    np.testing.assert_allclose(header.affine, expected.affine)


def test_big_endian_files_and_a_qform_alone_are_fine(tmp_path):
    from umamba_seg.datasets.nifti import read

    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    made = nibabel.Nifti1Image(image(0), None, header)
    made.set_qform(flipped(), 1)
    nibabel.save(made, tmp_path / "x.nii")

    told, voxels = read(tmp_path / "x.nii")

    np.testing.assert_array_equal(voxels, image(0))
    np.testing.assert_allclose(told.affine, flipped(), atol=1e-5)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the data are not here")
def test_real_data_are_left_in_peace():
    assert check(SHARED / "data" / "Dataset004_Hippocampus").findings == ()


def test_a_case_may_end_in_four_digits_and_the_right_name_is_told(raw):
    for case, new in zip(CASES, ("p_0001", "p_0002", "p_0003", "p_0004", "p_0005", "p_0006"), strict=True):
        image_of(raw, case).rename(image_of(raw, new))
        label_of(raw, case).rename(label_of(raw, new))
    assert check(raw).findings == ()

    image_of(raw, "p_0003").rename(raw / "imagesTr/p_0003.nii.gz")
    (finding,) = [x for x in check(raw).findings if x.code == "channel-suffix"]
    assert finding.expected == "p_0003_0000.nii.gz"

"""Test images are looked at beside the training set that they belong to."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.liver import cut, describe, found, image, image_of, put, save
from umamba_seg.datasets.check.run import check
from umamba_seg.errors import DataError


@pytest.fixture
def tests(raw: Path) -> Path:
    folder = raw / "imagesTs"
    folder.mkdir()
    for seed, case in enumerate(("t_0001", "t_0002")):
        save(folder / f"{case}_0000.nii.gz", image(30 + seed))
    return folder


def test_sound_test_images_are_left_in_peace(raw, tests):
    assert check(raw, test=tests).findings == ()


def test_without_the_option_nobody_looks(raw, tests):
    (tests / "t.nii.gz").write_bytes(b"")

    assert check(raw).findings == ()


def test_names_channels_readability_and_values_are_looked_at(raw, tests):
    shutil.copy(tests / "t_0001_0000.nii.gz", tests / "t_0001_0001.nii.gz")
    shutil.copy(tests / "t_0001_0000.nii.gz", tests / "plain.nii.gz")
    cut(tests / "t_0002_0000.nii.gz", 0.5)
    save(tests / "t_0003_0000.nii.gz", put(image(9), np.nan, np.float32))
    (tests / "t_0004_0000.nii.gz").symlink_to("nowhere")

    report = check(raw, test=tests)

    assert found(report) == {
        ("channel-extra", "error", ("t_0001",)),
        ("channel-suffix", "error", ("plain",)),
        ("unreadable", "error", ("t_0002",)),
        ("image-nonfinite", "error", ("t_0003",)),
        ("link-broken", "error", ("t_0004",)),
    }
    assert all(name.startswith("imagesTs/") for finding in report.findings for name in finding.files)


def test_a_missing_channel_is_told_with_its_folder(raw, tests):
    describe(raw, channel_names={"0": "CT", "1": "PET"})

    findings = [x for x in check(raw, test=tests).findings if x.code == "channel-missing" and x.cases == ("t_0001",)]

    assert [x.files for x in findings] == [("imagesTs/t_0001_0001.nii.gz",)]


def test_a_training_image_among_the_test_images_is_told_whatever_its_name(raw, tests):
    shutil.copy(image_of(raw), tests / "t_0009_0000.nii.gz")

    assert found(check(raw, test=tests)) == {("duplicate-image", "warning", ("t_0009", "case_3"))}


def test_the_folder_may_lie_elsewhere_but_must_be_there(raw, tests, tmp_path):
    assert check(raw, test=tests.rename(tmp_path / "scans")).findings == ()

    with pytest.raises(DataError, match="no such folder"):
        check(raw, test=tests)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert found(check(raw, test=empty)) == {("folder", "error", ())}


def test_a_quick_look_opens_headers_only(raw, tests):
    save(tests / "t_0003_0000.nii.gz", put(image(9), np.nan, np.float32))

    assert check(raw, test=tests, quick=True).findings == ()

"""A task of the decathlon becomes a data set with one file for each channel."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.datasets.liver import affine, cut, label
from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.decathlon import is_task, number_and_name, read
from umamba_seg.datasets.intake import build
from umamba_seg.errors import DataError

CASES = [f"prostate_{number:02d}" for number in range(5)]


def scan(seed: int, channels: int) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 900, (*label().shape, channels)).astype(np.int16)
    return made if channels > 1 else made[..., 0]


@pytest.fixture(params=[2, 1], ids=["two channels", "one channel"])
def task(request, tmp_path) -> Path:
    return make_task(tmp_path, request.param)


def make_task(folder: Path, channels: int) -> Path:
    made = folder / "Task05_Prostate"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (made / name).mkdir(parents=True)
    for seed, case in enumerate(CASES):
        nibabel.save(nibabel.Nifti1Image(scan(seed, channels), affine()), made / f"imagesTr/{case}.nii.gz")
        values = np.roll(label(seed), seed % 2, axis=0)
        nibabel.save(nibabel.Nifti1Image(values, affine()), made / f"labelsTr/{case}.nii.gz")
        (made / f"imagesTr/._{case}.nii.gz").write_bytes(b"left by macOS")
    nibabel.save(nibabel.Nifti1Image(scan(9, channels), affine()), made / "imagesTs/prostate_09.nii.gz")
    describe(made, channels)
    return made


def describe(task: Path, channels: int = 2, **changes: object) -> None:
    content = {
        "name": "PROSTATE",
        "licence": "CC-BY-SA 4.0",
        "modality": dict(list({"0": "T2", "1": "ADC"}.items())[:channels]),
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": 5,
        "numTest": 1,
        "tensorImageSize": "4D",
        "training": [{"image": f"./imagesTr/{x}.nii.gz", "label": f"./labelsTr/{x}.nii.gz"} for x in CASES],
        "test": ["./imagesTs/prostate_09.nii.gz"],
    }
    (task / "dataset.json").write_text(json.dumps(content | changes))


def taken_in(task: Path, target: Path, *, links: bool = False) -> Path:
    pairs, description = read(task, json.loads((task / "dataset.json").read_text()))
    build(target, pairs, description, links=links)
    return target


@pytest.mark.parametrize("links", [False, True])
def test_channels_become_files_with_the_voxels_and_the_place_they_had(task, tmp_path, links):
    channels = len(json.loads((task / "dataset.json").read_text())["modality"])

    raw = taken_in(task, tmp_path / "raw/Dataset005_Prostate", links=links)

    assert check(raw).findings == ()
    assert len(list((raw / "imagesTr").iterdir())) == 5 * channels
    for number in range(channels):
        for folder, case, seed in (("imagesTr", "prostate_03", 3), ("imagesTs", "prostate_09", 9)):
            made = nibabel.load(raw / f"{folder}/{case}_{number:04d}.nii.gz")
            source = scan(seed, channels)
            np.testing.assert_array_equal(np.asarray(made.dataobj), source[..., number] if channels > 1 else source)
            np.testing.assert_allclose(made.affine, affine())
    assert (raw / "labelsTr/prostate_03.nii.gz").is_symlink() == links
    assert (raw / "imagesTr/prostate_03_0000.nii.gz").is_symlink() == (links and channels == 1)


def test_the_description_is_that_of_nnunet_with_what_else_was_told(task):
    _, made = read(task, json.loads((task / "dataset.json").read_text()))

    assert made["labels"] == {"background": 0, "PZ": 1, "TZ": 2}
    assert made["channel_names"]["0"] == "T2"
    assert (made["numTraining"], made["file_ending"], made["licence"]) == (5, ".nii.gz", "CC-BY-SA 4.0")
    assert not made.keys() & {"modality", "training", "test", "tensorImageSize"}


def test_a_folder_is_known_by_its_list_of_files(task):
    content = json.loads((task / "dataset.json").read_text())

    assert is_task(task, content)
    assert not is_task(task, content | {"file_ending": ".nii.gz"})
    assert not is_task(task, content | {"training": [{"image": "./imagesTr/as_in_version_1.nii.gz"}]})
    assert not is_task(task, {"channel_names": {"0": "CT"}})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Task04_Hippocampus", (4, "Hippocampus")), ("Task123_A_b", (123, "A_b")), ("scans", (None, "scans"))],
)
def test_number_and_name_are_in_the_name_of_the_folder(tmp_path, name, expected):
    assert number_and_name(tmp_path / name) == expected


FAULTS = {
    "no list": ({"training": None}, 'no list "training"'),
    "no image": ({"training": [{"label": "x"}]}, "an entry"),
    "no channels": ({"modality": {}}, "are needed"),
    "missing file": ({"training": [{"image": "./x.nii.gz", "label": "./y.nii.gz"}]}, "not there"),
    "outside": ({"training": [{"image": "../x.nii.gz", "label": "./y.nii.gz"}]}, "outside"),
    "absolute": ({"training": [{"image": "/etc/x.nii.gz", "label": "./y.nii.gz"}]}, "outside"),
    "odd ending": ({"training": [{"image": "x.jpg", "label": "y.jpg"}]}, "end in x.jpg"),
    "other count of channels": ({"modality": {"0": "a", "1": "b", "2": "c"}}, "a fourth axis of 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_list_that_cannot_be_used_is_told_and_nothing_is_left(tmp_path, fault):
    changes, message = FAULTS[fault]
    task = make_task(tmp_path, 2)
    describe(task, **changes)

    with pytest.raises(DataError, match=message):
        taken_in(task, tmp_path / "raw/Dataset005_X")

    assert not list(tmp_path.glob("raw/*"))


def test_a_file_that_was_cut_off_is_told(tmp_path):
    task = make_task(tmp_path, 2)
    cut(task / "imagesTr/prostate_03.nii.gz", 0.5)

    with pytest.raises(DataError, match="cut off") as told:
        taken_in(task, tmp_path / "raw/Dataset005_X")
    assert "prostate_03" in told.value.where


def test_a_test_image_outside_is_left_alone(tmp_path):
    task = make_task(tmp_path, 2)
    (tmp_path / "secret.nii.gz").write_bytes(b"x")
    describe(task, test=["../secret.nii.gz", "./imagesTs/gone.nii.gz"])

    pairs, _ = read(task, json.loads((task / "dataset.json").read_text()))

    assert pairs.tests == {}

"""`umamba predict`: broken cases among good ones, kills, zips, DICOM, parts, and what is written beside label maps."""

import csv
import gzip
import json
import locale
import os
import shutil
import signal
import struct
import sys
import time
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers import Umamba, mends
from tests.inference.stock import labels_in, write_image
from umamba_seg.bench.made_up_model import MadeUp


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return MadeUp(spacing=(1.2, 0.9, 1.0), tile=(8, 8, 8)).write(tmp_path_factory.mktemp("Dataset999_MadeUp"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate("abcd"):
        write_image(folder / f"{name}_0000.nii.gz", (10, 12, 11), (1.0, 1.0, 1.0), seed=seed)
    return folder


def predict(model, images, *more, out="out"):
    return ("predict", model, "-i", images, "-o", out, "--no-tta", "--device", "cpu", *more)


def rows(folder: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader((folder / "predictions.csv").read_text().splitlines())}


def _reheader(path: Path, at: int, form: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + form, content, at, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def _save(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


BROKEN = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:900]), "cut off"),
    "channels": (lambda path: _save(path, np.zeros((8, 8, 8, 2), np.float32)), "4 axes"),
    "nan": (lambda path: _save(path, np.full((8, 8, 8), np.nan, np.float32)), "NaN"),
    "spacing": (lambda path: _reheader(path, 80, "f", 0.0), "spacing makes no sense"),
    "unreadable": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "HTML"),
    "flat": (lambda path: _save(path, np.zeros((8, 8), np.float32)), "2 axes"),
    "huge": (lambda path: _reheader(path, 42, "3h", 32000, 32000, 32000), "promises"),
}


def test_seven_broken_of_a_hundred_cases_leave_93_label_maps_and_seven_lines(umamba, model, images):
    folder = umamba.folder / "images"
    folder.mkdir()
    for number in range(93):
        shutil.copy(images / "a_0000.nii.gz", folder / f"good{number:02d}_0000.nii.gz")
    for name, (break_it, _) in BROKEN.items():
        shutil.copy(images / "a_0000.nii.gz", folder / f"{name}_0000.nii.gz")
        break_it(folder / f"{name}_0000.nii.gz")

    answer = umamba(*predict(model, folder), "--json")

    assert answer.code == 8, answer.err[-3000:]
    assert "Traceback" not in answer.err
    document = answer.document()
    assert len(document["files"]) == 93
    assert len(list((umamba.folder / "out").glob("*.nii.gz"))) == 93
    assert set(document["failed"]) == set(BROKEN)
    table = rows(umamba.folder / "out")
    for name, (_, words) in BROKEN.items():
        assert words in document["failed"][name]
        assert "\n" not in document["failed"][name]
        assert (table[name]["state"], table[name]["reason"]) == ("failed", document["failed"][name])


def test_only_broken_cases_are_an_error_of_the_data(umamba, model, tmp_path):
    (tmp_path / "a_0000.nii.gz").write_bytes(b"nothing")

    assert "no case could be segmented" in mends(umamba(*predict(model, tmp_path / "a_0000.nii.gz")), code=3)


def test_after_kill_9_the_same_command_goes_on_and_nothing_half_written_is_taken(umamba, model, images):
    folder = umamba.folder / "images"
    folder.mkdir()
    for number in range(12):
        shutil.copy(images / f"{'abcd'[number % 4]}_0000.nii.gz", folder / f"c{number:02d}_0000.nii.gz")
    undisturbed = umamba(*predict(model, folder, out="straight"))
    assert undisturbed.code == 0, undisturbed.err[-3000:]
    out, kills = umamba.folder / "out", 0
    while kills < 3:
        process = umamba.start(sys.executable, "-m", "umamba_seg.cli.main", *predict(model, folder))
        before, deadline = len(list(out.glob("c*.nii.gz"))), time.monotonic() + 300
        while process.poll() is None and len(list(out.glob("c*.nii.gz"))) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1

    answer = umamba(*predict(model, folder), "--json")

    assert answer.code == 0, answer.err[-3000:]
    reused = answer.document()["reused"]
    assert reused >= 2, "what was done before the last kills was done again"
    for file in sorted((umamba.folder / "straight").glob("*.nii.gz")):
        assert np.array_equal(labels_in(file), labels_in(out / file.name))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(umamba, model, images):
    folder = umamba.folder / "images"
    folder.mkdir()
    for number in range(40):
        shutil.copy(images / "a_0000.nii.gz", folder / f"c{number:02d}_0000.nii.gz")
    process = umamba.start(sys.executable, "-m", "umamba_seg.cli.main", *predict(model, folder))
    deadline = time.monotonic() + 300
    while not list((umamba.folder / "out").glob("c*.nii.gz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)

    assert process.returncode == 4, err[-3000:]
    assert "run the same command to go on" in err
    answer = umamba(*predict(model, folder), "--json")
    assert answer.code == 0
    assert answer.document()["reused"] >= 1
    assert len(list((umamba.folder / "out").glob("c*.nii.gz"))) == 40


def test_a_second_run_does_nothing_and_other_options_are_refused_without_a_word(umamba, model, images):
    assert umamba(*predict(model, images)).code == 0
    stamps = {file: file.stat().st_mtime_ns for file in (umamba.folder / "out").glob("*.nii.gz")}

    again = umamba(*predict(model, images), "--json")

    assert (again.code, again.document()["reused"]) == (0, 4)
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}
    assert "--overwrite" in mends(umamba(*predict(model, images), "--step", 0.75), code=2)


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def _zip(model: Path, target: Path, prefix: str = "Dataset999_MadeUp/") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in model.rglob("*"):
            if file.is_file():
                archive.write(file, f"{prefix}{model.name}/{file.relative_to(model)}")
    return target


def test_a_checkpoint_that_would_run_code_runs_none_in_a_folder_and_in_a_zip(umamba, model, images):
    bad = umamba.folder / model.name
    shutil.copytree(model, bad)
    checkpoint = bad / "fold_0/checkpoint_final.pth"
    torch.save(torch.load(checkpoint, weights_only=True) | {"extra": Code()}, checkpoint)

    for source in (bad, _zip(bad, umamba.folder / "bad.zip")):
        assert "--trust" in mends(umamba(*predict(source, images)), code=7)
    assert not (umamba.folder / "executed").exists()
    assert not list((umamba.folder / "out").glob("*.nii.gz"))


def test_a_zip_that_reaches_outside_is_refused(umamba, model, images):
    bad = _zip(model, umamba.folder / "bad.zip")
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("../escaped.txt", "out")

    mends(umamba(*predict(bad, images)), code=7)
    assert not (umamba.folder.parent / "escaped.txt").exists()


def test_a_zip_a_fold_and_a_name_give_what_the_folder_gives(umamba, model, images):
    assert umamba(*predict(model, images / "a_0000.nii.gz")).code == 0
    expected = labels_in(umamba.folder / "out/a.nii.gz")
    packed = _zip(model, umamba.folder / "model.zip")
    installed = umamba("models", "install", packed, "--name", "made-up", "--json")
    assert installed.code == 0, installed.err

    for source in (packed, model / "fold_0", "made-up"):
        answer = umamba(
            "predict", source, "-i", images / "a_0000.nii.gz", "-o", "x/b.nii.gz", "--no-tta", "--overwrite"
        )
        assert answer.code == 0, answer.err
        assert np.array_equal(labels_in(umamba.folder / "x/b.nii.gz"), expected)


def test_parts_share_a_folder_without_forgetting_each_other(umamba, model, images):
    for part in ("1/2", "2/2"):
        assert umamba(*predict(model, images), "--part", part).code == 0

    whole = umamba(*predict(model, images), "--json")

    assert (whole.code, whole.document()["reused"]) == (0, 4)


def test_beside_label_maps_there_is_what_was_asked_for(umamba, model, images):
    more = ("--statistics", "--preview", "--save-probabilities")
    answer = umamba(*predict(model, images), *more, "--json")
    assert answer.code == 0, answer.err

    out = umamba.folder / "out"
    names = {path.name for path in out.iterdir()}
    assert {"statistics.csv", "previews", "umamba_run.json", "dataset.json", "plans.json", "a.npz", "a.pkl"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert {path.name for path in (out / "previews").iterdir()} == {f"{name}.png" for name in "abcd"}
    table = list(csv.DictReader((out / "statistics.csv").read_text().splitlines()))
    assert {row["name"] for row in table} <= {"class 1", "class 2"}
    assert {row["case"] for row in table} == set("abcd")
    record = json.loads((out / "umamba_run.json").read_text())
    assert record["options"]["mirror"] is False
    assert record["exit_code"] == 0


def test_a_dry_run_says_what_would_be_and_writes_nothing(umamba, model, images):
    answer = umamba(*predict(model, images), "--dry-run", "--json")

    document = answer.document()
    assert (answer.code, document["dry_run"], len(document["files"])) == (0, True, 4)
    assert document["estimate"]["tiles"] > 0
    assert document["estimate"]["memory"] > 0
    assert not (umamba.folder / "out").exists()


def test_fast_names_what_it_changes(umamba, model, images):
    answer = umamba("predict", model, "-i", images, "-o", "out", "--fast", "--device", "cpu", "--json")

    assert answer.code == 0, answer.err
    changed = answer.document()["changed"]
    assert (changed["mirror"], changed["step"]) == (False, 0.75)
    assert "not as nnU-Net does it" in answer.err


def test_a_list_of_cases_names_the_files_of_each(umamba, model, images):
    (umamba.folder / "cases.json").write_text(json.dumps({"first": [str(images / "a_0000.nii.gz")]}))

    assert umamba(*predict(model, "cases.json")).code == 0
    assert (umamba.folder / "out/first.nii.gz").is_file()


def test_a_dicom_series_gives_what_its_volume_gives(umamba, model, images):
    pytest.importorskip("pydicom")
    import SimpleITK

    volume = SimpleITK.Cast(SimpleITK.ReadImage(str(images / "a_0000.nii.gz")), SimpleITK.sitkInt16)
    write_series(volume, umamba.folder / "series")
    SimpleITK.WriteImage(SimpleITK.Cast(volume, SimpleITK.sitkFloat32), str(umamba.folder / "v_0000.nii.gz"))
    assert umamba(*predict(model, "v_0000.nii.gz")).code == 0

    answer = umamba(*predict(model, "series"))

    assert answer.code == 0, answer.err
    expected = SimpleITK.ReadImage(str(umamba.folder / "out/v.nii.gz"))
    actual = SimpleITK.ReadImage(str(umamba.folder / "out/series.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(actual), SimpleITK.GetArrayFromImage(expected))
    np.testing.assert_allclose(actual.GetOrigin(), expected.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(actual.GetDirection(), expected.GetDirection(), atol=1e-5)


def write_series(volume, folder: Path) -> None:
    """A CT series of an image of SimpleITK, a file for each slice."""
    import SimpleITK
    from pydicom.uid import generate_uid

    folder.mkdir()
    spoken = locale.setlocale(locale.LC_ALL)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    series, direction = generate_uid(), volume.GetDirection()
    cosines = [direction[axis + 3 * row] for axis in (0, 1) for row in range(3)]
    for z in range(volume.GetSize()[2]):
        plane = volume[:, :, z]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0018": generate_uid(), "0008|0060": "CT",
            "0020|000d": series + ".1", "0020|000e": series, "0020|0013": str(z + 1),
            "0020|0032": "\\".join(f"{x:.9g}" for x in volume.TransformIndexToPhysicalPoint((0, 0, z))),
            "0020|0037": "\\".join(f"{x:.9g}" for x in cosines), "0020|0052": series + ".2",
            "0028|1052": "0", "0028|1053": "1",
        }  # fmt: skip
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:03d}.dcm"))
        writer.Execute(plane)
    locale.setlocale(locale.LC_ALL, spoken)  # writing 0020|0032 sets the whole process's to C, in which text is ASCII


def test_options_that_make_no_sense_are_refused(umamba: Umamba, model, images):
    for more in (
        ("--step", 0),
        ("--accumulate", "double"),
        ("--precision", "fp8"),
        ("--backend", "tpu"),
        ("--memory", 0),
    ):
        mends(umamba(*predict(model, images), *more), code=2)

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import SimpleITK

from tests.helpers import DATASET
from umamba_seg.errors import DataError
from umamba_seg.planning import fingerprint as module
from umamba_seg.planning.cases import training_cases
from umamba_seg.planning.provenance import FILE, Notes
from umamba_seg.workspace import Dataset, Workspace


@pytest.fixture
def dataset(phantoms_planned_once: Path, tmp_path: Path, monkeypatch) -> Dataset:
    """A data set with its fingerprint, whose extraction is only counted."""
    shutil.copytree(phantoms_planned_once / "umamba_workspace", tmp_path / "workspace")
    monkeypatch.setattr(module, "_extract", lambda dataset, processes: None)
    return Dataset(DATASET, Workspace.below(tmp_path / "workspace"))


def state(dataset: Dataset) -> str:
    return module.fingerprint(dataset, training_cases(dataset), 1, lambda progress: None)


def test_a_fingerprint_of_the_same_data_is_used_again(dataset):
    assert state(dataset) == "reused"


def test_a_changed_image_makes_a_new_one(dataset):
    file = dataset.raw / "imagesTr/train_001_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)) + 1, str(file))
    assert state(dataset) == "made"
    assert state(dataset) == "reused"


def test_images_that_were_only_copied_make_none(dataset):
    for file in (dataset.raw / "imagesTr").iterdir():
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
    assert state(dataset) == "reused"


def test_a_case_less_makes_a_new_one(dataset):
    (dataset.raw / "imagesTr/train_004_0000.nii.gz").unlink()
    (dataset.raw / "labelsTr/train_004.nii.gz").unlink()
    assert state(dataset) == "made"


def test_one_of_nnunet_is_used_unless_an_image_is_newer(dataset):
    (dataset.preprocessed / FILE).unlink()
    assert state(dataset) == "reused"
    now = time.time_ns() + 10**9
    os.utime(dataset.raw / "imagesTr/train_001_0000.nii.gz", ns=(now, now))
    assert state(dataset) == "made"


def test_raw_files_are_read_once(dataset, monkeypatch):
    notes = Notes.read(dataset)
    monkeypatch.setattr("umamba_seg.planning.provenance.sha256", lambda file: pytest.fail(f"{file} is read again"))
    for case in training_cases(dataset).values():
        assert notes.content_of(case)


def test_notes_that_are_no_json_are_told(dataset):
    (dataset.preprocessed / FILE).write_text("{")
    with pytest.raises(DataError, match=FILE):
        state(dataset)


def test_notes_hold_nothing_but_names_sizes_times_and_hashes(dataset):
    content = json.loads((dataset.preprocessed / FILE).read_text())
    assert set(content) == {"files", "fingerprint", "folders"}

"""Preprocessed data are made once, gone on with, and used again only while they are what the plans make."""

import json
import os
import pickle
import re
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK

from tests.helpers import DATASET
from umamba_seg.errors import DataError, Interrupted, ResourceError, UsageError
from umamba_seg.planning import preprocess as module
from umamba_seg.planning.preprocess import PreprocessResult, preprocess
from umamba_seg.planning.provenance import FILE

IDENTIFIER = "nnUNetPlans_3d_fullres"


class Place:
    """A copy of the workspace in which all is planned and preprocessed."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.raw = workspace / "nnUNet_raw" / DATASET
        self.data = workspace / "nnUNet_preprocessed" / DATASET
        self.folder = self.data / IDENTIFIER

    def preprocess(self, plans: str = "our3DPlans", **options) -> PreprocessResult:
        options = {"configurations": ["3d_fullres"], "processes": 1, **options}
        return preprocess("900", plans=plans, workspace=self.workspace, **options)

    def state(self, **options) -> tuple[str, int]:
        (entry,) = self.preprocess(**options).configurations
        return entry.state, entry.made

    def refused(self, **options) -> str:
        before = self.files()
        with pytest.raises(UsageError) as fault:
            self.preprocess(**options)
        assert self.files() == before, "nothing is touched when it is refused"
        assert "--overwrite" in str(fault.value)
        return fault.value.what

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.folder.iterdir()}

    def change_plans(self, **entries) -> str:
        plans = json.loads((self.data / "our3DPlans.json").read_text())
        plans["configurations"]["3d_fullres"] |= entries
        (self.data / "changedPlans.json").write_text(json.dumps({**plans, "plans_name": "changedPlans"}))
        return "changedPlans"

    def forget(self) -> None:
        """As if nnU-Net had made all of it."""
        (self.data / FILE).unlink()


@pytest.fixture
def place(phantoms_planned_once: Path, tmp_path: Path) -> Place:
    shutil.copytree(phantoms_planned_once / "umamba_workspace", tmp_path / "workspace")
    return Place(tmp_path / "workspace")


def test_what_is_current_is_not_touched(place):
    before = place.files()
    assert place.state() == ("reused", 0)
    assert place.files() == before


def test_a_missing_case_is_made_and_no_other(place):
    before = place.files()
    for file in place.folder.glob("train_002*"):
        file.unlink()

    assert place.state() == ("made", 1)

    after = place.files()
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} == {
        "train_002.pkl",
        "train_002.b2nd",
        "train_002_seg.b2nd",
    }
    assert place.state() == ("reused", 0)


def test_what_a_run_that_was_cut_off_left_of_a_case_is_made_again(place):
    (place.folder / "train_002.pkl").unlink()  # the last file of a case that is written
    (place.folder / "train_002.b2nd").write_bytes(b"half")
    assert place.state() == ("made", 1)


def test_our_cases_are_those_of_nnunet(place):
    import blosc2
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    from umamba_seg.workspace import Workspace

    names = sorted(place.files())
    ours = {name: blosc2.open(str(place.folder / name), mode="r")[:] for name in names if name.endswith("b2nd")}
    properties = pickle.loads((place.folder / "train_001.pkl").read_bytes())

    with Workspace.below(place.workspace).active():
        preprocess_dataset(900, "our3DPlans", ["3d_fullres"], [1], show_progress_bar=False)

    assert sorted(place.files()) == names
    for name, values in ours.items():
        assert np.array_equal(blosc2.open(str(place.folder / name), mode="r")[:], values), name
    stock = pickle.loads((place.folder / "train_001.pkl").read_bytes())
    assert stock.keys() == properties.keys()
    for label, locations in properties["class_locations"].items():
        assert np.array_equal(stock["class_locations"][label], locations)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"spacing": [2.0, 1.0, 1.0]}, "spacing"),
        ({"normalization_schemes": ["ZScoreNormalization"]}, "normalisation"),
        ({"use_mask_for_norm": [True]}, "normalisation"),
        (
            {"resampling_fn_data_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}},
            "resampling",
        ),
    ],
)
def test_data_that_other_plans_made_are_not_used_again(place, entry, told):
    assert f"other {told}" in place.refused(plans=place.change_plans(**entry))


def test_another_patch_uses_the_same_data(place):
    assert place.state(plans=place.change_plans(patch_size=[8, 8, 8], batch_size=5)) == ("reused", 0)


def test_asked_for_all_is_made_anew(place):
    name = place.change_plans(spacing=[2.0, 1.0, 1.0])
    assert place.state(plans=name, overwrite=True) == ("made", 5)
    assert place.state(plans=name) == ("reused", 0)
    assert "spacing" in place.refused()


def test_an_image_that_has_changed_is_noticed(place):
    file = place.raw / "imagesTr/train_001_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)) + 1, str(file))
    assert "train_001" in place.refused()
    assert place.state(overwrite=True) == ("made", 5)


def test_a_label_that_has_changed_is_noticed(place):
    file = place.raw / "labelsTr/train_003.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)) * 0, str(file))
    assert "train_003" in place.refused()


def test_raw_files_that_were_only_copied_are_the_same(place):
    for file in (place.raw / "imagesTr").iterdir():
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
    assert place.state() == ("reused", 0)


def test_cases_that_are_gone_from_the_raw_data_are_told(place):
    (place.raw / "imagesTr/train_004_0000.nii.gz").unlink()
    (place.raw / "labelsTr/train_004.nii.gz").unlink()
    assert "train_004" in place.refused()


def test_data_of_nnunet_are_used_with_a_word_on_what_nobody_can_tell(place):
    place.forget()
    (entry,) = place.preprocess().configurations
    assert entry.state == "reused"
    assert any("no note" in remark for remark in entry.remarks)


def test_raw_files_newer_than_data_of_nnunet_are_told(place):
    place.forget()
    now = time.time_ns() + 10**9
    os.utime(place.raw / "imagesTr/train_001_0000.nii.gz", ns=(now, now))
    (entry,) = place.preprocess().configurations
    assert any("train_001" in remark for remark in entry.remarks)


def test_data_of_nnunet_of_another_spacing_are_refused(place):
    place.forget()
    assert "another spacing" in place.refused(plans=place.change_plans(spacing=[2.0, 1.0, 1.0]))


def test_data_of_nnunet_that_its_plans_make_with_another_normalisation_are_refused(place):
    place.forget()
    name = place.change_plans(normalization_schemes=["ZScoreNormalization"])
    assert "normalisation" in place.refused(plans=name)


def test_what_nnunet_made_after_us_does_not_count_as_ours(place):
    for case in place.folder.glob("*.pkl"):
        os.utime(case, ns=(time.time_ns(), time.time_ns()))
    (entry,) = place.preprocess().configurations
    assert any("no note" in remark for remark in entry.remarks)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(place):
    shutil.rmtree(place.folder)
    (entry,) = place.preprocess(dry_run=True).configurations
    assert (entry.state, entry.made, entry.cases) == ("dry run", 5, 5)
    assert entry.estimate.disk_gb > 0
    assert not place.folder.exists()


def test_a_dry_run_tells_what_needs_to_be_overwritten(place):
    (entry,) = place.preprocess(plans=place.change_plans(spacing=[2.0, 1.0, 1.0]), dry_run=True).configurations
    assert entry.made == 5
    assert entry.remarks[0].startswith("needs --overwrite")


def test_an_interruption_keeps_what_is_done(place, monkeypatch):
    shutil.rmtree(place.folder)
    made, make = [], module._make

    def make_two(*work):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(work)
        make(*work)

    monkeypatch.setattr(module, "_make", make_two)
    with pytest.raises(Interrupted, match="2 of 5"):
        place.preprocess()
    monkeypatch.setattr(module, "_make", make)
    assert place.state() == ("made", 3)


def test_without_a_fingerprint_it_says_who_makes_one(place):
    (place.data / "dataset_fingerprint.json").unlink()
    with pytest.raises(DataError, match="umamba plan 900"):
        place.preprocess()


def test_a_case_that_cannot_be_read_is_named_and_the_others_are_made(place):
    shutil.rmtree(place.folder)
    (place.raw / "imagesTr/train_001_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="train_001"):
        place.preprocess()
    assert len(list(place.folder.glob("*.pkl"))) == 4


def test_workers_do_the_same(place):
    shutil.rmtree(place.folder)
    assert place.state(processes=2) == ("made", 5)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (signal.SIGKILL, ResourceError, "killed by the system (signal 9)"),
        (signal.SIGSEGV, DataError, "ended by signal 11 (SIGSEGV)"),
    ],
    ids=["killed", "crashed"],
)
def test_a_worker_that_dies_is_told_with_its_case_and_the_rest_is_gone_on_with(place, monkeypatch, number, kind, told):
    shutil.rmtree(place.folder)
    monkeypatch.setattr(module, "_make", partial(_make_or_die, number=int(number)))

    with pytest.raises(kind) as fault:
        place.preprocess(processes=2)

    words = r"worker \d of 2 was .* while preprocessing train_003; [\d.]+ of [\d.]+ GB in use; what is done stays"
    assert re.fullmatch(words, fault.value.what)
    assert told in fault.value.what
    assert any("-j 1" in way for way in fault.value.how)
    monkeypatch.undo()
    done = len(list(place.folder.glob("*.pkl")))
    assert 0 < done < 5
    assert place.state(processes=2) == ("made", 5 - done)


_MAKE = module._make


def _make_or_die(*work, number: int) -> None:
    if work[-1].endswith("train_003"):
        os.kill(os.getpid(), number)
    _MAKE(*work)


def test_a_full_disk_is_told_before_it_is_full(place, monkeypatch):
    shutil.rmtree(place.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(ResourceError, match="free"):
        place.preprocess()
    assert not place.folder.exists()


def test_labels_are_kept_for_validation_without_the_raw_data(place):
    labels = place.data / "gt_segmentations"
    shutil.rmtree(labels)
    (place.folder / "train_000.pkl").unlink()
    place.preprocess()
    assert sorted(path.name for path in labels.iterdir()) == [f"train_{n:03d}.nii.gz" for n in range(5)]


@pytest.mark.parametrize(
    ("options", "where"), [({"plans": "noPlans"}, "-p"), ({"configurations": ["4d"]}, "-c"), ({"processes": 0}, "-j")]
)
def test_what_does_not_exist_is_named(place, options, where):
    with pytest.raises(UsageError) as fault:
        place.preprocess(**options)
    assert fault.value.where == where

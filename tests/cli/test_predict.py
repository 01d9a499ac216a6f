"""`umamba predict` with broken cases among good ones, and with a checkpoint that would run code."""

import csv
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers import DATASET, Umamba, mends


@pytest.fixture
def model(phantoms: Umamba) -> Path:
    train = ("train", 900, "3d_fullres", "all", "-p", "our3DPlans", "--epochs", 1, "--iterations", 1)
    answer = phantoms(*train, "--no-validation", "--device", "cpu", "--json")
    assert answer.code == 0, answer.err[-3000:]
    return Path(answer.document()["runs"][0]["folder"]).parent


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def test_broken_cases_do_not_stop_good_ones_and_a_pickle_with_code_is_refused(phantoms, model):
    good = next((Path(phantoms.variables["nnUNet_raw"]) / DATASET / "imagesTs").iterdir())
    folder = phantoms.folder / "images"
    folder.mkdir()
    for name in ("a", "b", "cut", "nan", "flat"):
        shutil.copy(good, folder / f"{name}_0000.nii.gz")
    (folder / "cut_0000.nii.gz").write_bytes(good.read_bytes()[:2000])
    for name, array in (("nan", np.full((20, 20, 20), np.nan, np.float32)), ("flat", np.zeros((20, 20), np.float32))):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}_0000.nii.gz")
    predict = ("predict", model, "-i", folder, "-o", "out", "--no-tta", "--device", "cpu")

    answer = phantoms(*predict, "--json")

    assert answer.code == 8, answer.err[-3000:]
    document = answer.document()
    assert [Path(file).name for file in document["files"]] == ["a.nii.gz", "b.nii.gz"]
    assert set(document["failed"]) == {"cut", "nan", "flat"}
    rows = {
        row["case"]: row for row in csv.DictReader((phantoms.folder / "out/predictions.csv").read_text().splitlines())
    }
    assert {case: row["state"] for case, row in rows.items()} == {
        "a": "done", "b": "done", "cut": "failed", "nan": "failed", "flat": "failed",
    }  # fmt: skip
    assert "cut off" in rows["cut"]["reason"]

    again = phantoms(*predict, "--json")
    assert (again.code, again.document()["reused"]) == (8, 2)

    checkpoint = model / "fold_all/checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content | {"extra": Code()}, checkpoint)
    assert "--trust" in mends(phantoms(*predict, "--overwrite"), code=7)
    assert not (phantoms.folder / "executed").exists()

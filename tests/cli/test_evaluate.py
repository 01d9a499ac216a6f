"""`umamba evaluate` and `umamba compare` on label maps made here."""

import csv
import json

import nibabel
import numpy as np
import pytest

from tests.helpers import Umamba, mends

LABELS = {"background": 0, "liver": 1, "tumour": 2}


@pytest.fixture
def judged(umamba: Umamba) -> Umamba:
    """References and predictions of two methods: `good` is one voxel off, `bad` three."""
    references = umamba.folder / "labelsTs"
    references.mkdir()
    (umamba.folder / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz"}))
    for name in ("good", "bad"):
        (umamba.folder / name).mkdir()
    for i in range(6):
        array = np.zeros((16, 16, 16), np.uint8)
        array[4:10, 4 : 9 + i % 3, 4:10], array[5:7, 5:7, 5:8] = 1, 2
        for folder, shift in (("labelsTs", 0), ("good", 1), ("bad", 3)):
            moved = nibabel.Nifti1Image(np.roll(array, shift, 0), np.diag([1, 1, 2, 1]))
            nibabel.save(moved, umamba.folder / folder / f"case_{i}.nii.gz")
    return umamba


def test_measures_are_told_written_and_compared(judged):
    answer = judged("evaluate", "labelsTs", "good", "--csv", "good.csv", "-j", 1, "--json")
    assert answer.code == 0, answer.err
    document = answer.document()
    assert document["cases"] == 6
    assert 0 < document["means"]["liver"]["dice"]["low"] <= document["means"]["liver"]["dice"]["mean"] < 1
    rows = list(csv.DictReader((judged.folder / "good.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert float(rows[0]["dice"]) > 0.5

    shown = judged("evaluate", "labelsTs", "bad", "-j", 1)
    assert shown.code == 0
    assert "tumour" in shown.out

    compared = judged("compare", "bad", "good", "--json")
    assert compared.code == 0, compared.err
    (found,) = compared.document()["comparisons"]
    assert found["verdict"] == "better"
    assert found["wins"] == 6
    assert (
        judged("compare", "bad", "good", "--metric", "hd95", "--json").document()["comparisons"][0]["verdict"]
        == "better"
    )


def test_what_is_missing_is_told(judged):
    (judged.folder / "good/case_3.nii.gz").unlink()
    answer = judged("evaluate", "labelsTs", "good", "-j", 1, "--json")
    assert answer.document()["missing"] == ["case_3"]

    assert "umamba evaluate" in mends(judged("compare", "good", "bad"), code=3)
    assert judged("compare", "good").code == 2
    assert judged("evaluate", "labelsTs", "nowhere").code == 2


def test_another_size_is_an_error_that_names_the_case(judged):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), judged.folder / "good/case_2.nii.gz")

    answer = judged("evaluate", "labelsTs", "good", "-j", 1)

    assert answer.code == 3
    assert "case_2.nii.gz" in answer.err

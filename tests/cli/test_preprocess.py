"""`umamba preprocess` as a user meets it. What it makes is tested in tests/planning."""

import shutil
from pathlib import Path

from tests.helpers import DATASET, mends


def test_what_is_missing_is_made_and_told(phantoms):
    folder = Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans_2d"
    shutil.rmtree(folder)

    dry = phantoms("preprocess", 900, "-p", "our2DPlans", "-c", "2d", "-j", 1, "--dry-run")
    assert dry.code == 0, dry.err
    assert f"{folder}: would make 5 of 5 cases" in dry.out
    assert "memory" in dry.err
    assert not folder.exists()

    made = phantoms("preprocess", 900, "-p", "our2DPlans", "-c", "2d", "-j", 1, "--json")
    assert made.code == 0, made.err
    (entry,) = made.document()["data"]
    assert (entry["state"], entry["made"], entry["cases"]) == ("made", 5, 5)

    again = phantoms("preprocess", 900, "-p", "our2DPlans")
    assert again.code == 0, again.err
    assert again.out.count("up to date") == 2


def test_plans_that_do_not_exist(phantoms):
    assert "our2DPlans" in mends(phantoms("preprocess", 900, "-p", "our2DPlan"), code=2)

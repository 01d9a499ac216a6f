"""`umamba plan` as a user meets it. What it plans is tested in tests/planning."""

import json
from pathlib import Path

from tests.helpers import DATASET, mends


def plans_in(phantoms) -> Path:
    return Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET


def test_a_baseline_is_planned_by_the_same_command_and_ours_from_it(phantoms):
    baseline = phantoms("plan", 900, "--network", "resenc_m", "-c", "2d", "--json")
    assert baseline.code == 0, baseline.err
    assert baseline.document()["steps"] == {"fingerprint": "reused", "preprocess 2d": "reused"}

    swapped = phantoms("plan", 900, "--network", "umamba_enc", "--from", "nnUNetResEncUNetMPlans", "--twin", "-c", "2d")
    assert swapped.code == 0, swapped.err
    assert "as in nnUNetResEncUNetMPlans" in swapped.out
    name = "umambaEncFromNnUNetResEncUNetMPlans"
    assert f"umamba train 900 2d 0 -p {name}" in swapped.err

    same = phantoms("plan", 900, "--diff", name, "nnUNetResEncUNetMPlans", "--json").document()
    assert same["controlled"]
    assert {entry["what"] for entry in same["differences"] if entry["configuration"] == "2d"} >= {"network"}

    other = phantoms("plan", 900, "--diff", name, "our2DPlans")
    assert other.code == 0, other.err
    assert "2d  patch  24×24 → 16×16" in other.out
    assert "more than the networks differs" in other.err


def test_plans_are_compared_by_file_without_a_data_set(phantoms):
    folder = plans_in(phantoms)
    answer = phantoms("plan", "--diff", folder / "our2DPlans.json", folder / "our2DNoMambaPlans.json")
    assert answer.code == 0, answer.err
    assert "2d  network mixer  mamba → none" in answer.out


def test_what_is_measured_stands_beside_the_estimate(phantoms):
    phantoms.variables["nnUNet_n_proc_DA"] = "1"
    options = ("--from", "our2DPlans", "-c", "2d", "--plans-name", "probedPlans", "--probe")
    answer = phantoms("plan", 900, *options, "--json")
    assert answer.code == 0, answer.err
    (entry,) = answer.document()["plans"][0]["configurations"]
    assert entry["measured"]["device"] in ("cpu", "cuda")
    assert 0 < entry["measured"]["memory_gb"] < 4
    assert entry["measured"]["epoch_seconds"] > 0
    assert 1 <= entry["measured"]["iterations"] <= 20
    assert entry["memory_gb"] > 0


def test_without_a_data_set_it_is_asked_for(umamba):
    assert "which data set" in mends(umamba("plan"), code=2)


def test_files_that_are_no_plans_are_told(phantoms):
    dataset_json = plans_in(phantoms) / "dataset.json"
    answer = phantoms("plan", "--diff", dataset_json, dataset_json)
    assert answer.code == 3
    assert "not nnU-Net plans" in answer.err


def test_a_dry_run_tells_what_it_takes(phantoms):
    answer = phantoms("plan", 900, "-c", "3d_fullres", "--dry-run", "--plans-name", "newPlans")
    assert answer.code == 0, answer.err
    assert "nothing was written" in answer.err
    assert not (plans_in(phantoms) / "newPlans.json").exists()


def test_stock_preprocessing_that_differs_is_named(phantoms):
    plans = json.loads((plans_in(phantoms) / "our3DPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    (plans_in(phantoms) / "finePlans.json").write_text(json.dumps({**plans, "plans_name": "finePlans"}))
    answer = phantoms("plan", 900, "--from", "finePlans", "-c", "3d_fullres")
    assert "other spacing" in mends(answer, code=2)

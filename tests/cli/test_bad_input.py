"""Every mistake gets one clear message, its exit code, and no traceback."""

import json

import pytest

from tests.helpers import Umamba, mends
from tests.planning.made_up import write_case
from umamba_seg.datasets.phantoms import write_dataset

DATASET = "Dataset900_Phantoms"


@pytest.fixture
def planned(umamba: Umamba) -> Umamba:
    """A workspace with a data set whose fingerprint and one preprocessed configuration look complete."""
    workspace = umamba.folder / "umamba_workspace"
    write_dataset(workspace / "nnUNet_raw", cases=5, shape=(16, 24, 24))
    preprocessed = workspace / "nnUNet_preprocessed" / DATASET
    (preprocessed / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    for number in range(5):
        write_case(preprocessed / "nnUNetPlans_3d_fullres" / f"train_{number:03d}", (16, 24, 24), (3.0, 1.5, 1.5))
    intensity = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "spacings": [[3.0, 1.5, 1.5]] * 5,
        "shapes_after_crop": [[16, 24, 24]] * 5,
        "foreground_intensity_properties_per_channel": {"0": intensity},
        "median_relative_size_after_cropping": 1.0,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return umamba


def test_a_missing_dataset(umamba):
    assert "there is no data set '12'" in mends(umamba("plan", 12), code=2)


def test_a_mistyped_dataset_is_answered_with_the_closest(planned):
    assert "Dataset900_Phantoms" in mends(planned("plan", "Phantom"), code=2)


def test_an_unknown_network(planned):
    assert "umamba_bot" in mends(planned("plan", 900, "--network", "umamba_bott"), code=2)


def test_an_unknown_mixer(planned):
    answer = planned("plan", 900, "--mixer", "mambo")
    assert answer.code == 2
    assert "mamba" in answer.err
    assert "Traceback" not in answer.err


def test_a_wrong_configuration(planned):
    assert "3d_fullres" in mends(planned("plan", 900, "-c", "3d_foolres"), code=2)


def test_a_patch_that_does_not_fit_the_strides_names_the_next_that_does(planned):
    assert "--patch 16,32,32" in mends(planned("plan", 900, "-c", "3d_fullres", "--patch", "16,30,30"), code=2)


@pytest.mark.parametrize("patch", ["16,x,16", "16", "0,16,16", "16,16,16,16"])
def test_a_patch_that_is_none(planned, patch):
    answer = planned("plan", 900, "-c", "3d_fullres", "--patch", patch)
    assert answer.code == 2
    assert "--patch" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("option", [("--vram", 0), ("--batch", 0)])
def test_numbers_that_make_no_sense(planned, option):
    answer = planned("plan", 900, *option)
    assert answer.code == 2
    assert option[0] in answer.err


def test_a_dry_run_writes_nothing(planned):
    before = sorted(planned.folder.rglob("*"))
    answer = planned("plan", 900, "--dry-run", "--json", "-c", "3d_fullres")
    assert answer.code == 0, answer.err
    assert answer.document()["plans"][0]["state"] == "dry run"
    assert [path for path in sorted(planned.folder.rglob("*")) if "home" not in path.parts] == before


def test_plans_that_differ_are_not_replaced_unasked(planned):
    first = ("plan", 900, "-c", "3d_fullres", "--batch")
    assert planned(*first, 2).code == 0
    assert "--overwrite" in mends(planned(*first, 3), code=2)
    assert planned(*first, 3, "--overwrite").code == 0


def test_preprocessed_data_that_other_plans_made_are_not_deleted_unasked(planned):
    folder = planned.folder / "umamba_workspace/nnUNet_preprocessed" / DATASET / "nnUNetPlans_3d_fullres"
    write_case(folder / "train_000", (8, 24, 24), (3.0, 1.5, 1.5))
    assert "another spacing" in mends(planned("plan", 900, "-c", "3d_fullres"), code=2)
    assert len(list(folder.iterdir())) == 15


def test_raw_data_without_cases(planned):
    for path in (planned.folder / "umamba_workspace/nnUNet_raw" / DATASET / "imagesTr").iterdir():
        path.unlink()
    assert "no training case" in mends(planned("plan", 900), code=3)


def test_a_broken_dataset_json(planned):
    (planned.folder / "umamba_workspace/nnUNet_raw" / DATASET / "dataset.json").write_text("{")
    answer = planned("plan", 900)
    assert answer.code == 3
    assert "dataset.json" in answer.err
    assert "Traceback" not in answer.err


def test_training_without_plans(planned):
    assert "umamba plan 900" in mends(planned("train", 900, "3d_fullres", 0), code=2)


def test_training_of_what_does_not_exist(planned):
    assert planned("plan", 900, "-c", "3d_fullres").code == 0
    assert "3d_fullres" in mends(planned("train", 900, "3d_foolres", 0), code=2)
    assert "0 to 4" in planned("train", 900, "3d_fullres", 7).err
    assert "nnUNetTrainerUMambaBot" in mends(
        planned("train", 900, "3d_fullres", 0, "-tr", "nnUNetTrainerUMambaBott"), code=2
    )
    assert "umamba plan 900 -c 2d" in mends(planned("train", 900, "2d", 0), code=3)
    assert planned("train", 900, "3d_fullres", 0, "--epochs", 0).code == 2
    assert planned("train", 900, "3d_fullres", 0, "--device", "tpu").code == 2
    dry = planned("train", 900, "3d_fullres", 0, "--dry-run", "--epochs", 5)
    assert "nnUNetTrainer_e5__umambaBot8GPlans__3d_fullres" in dry.out
    assert not (planned.folder / "umamba_workspace/nnUNet_results" / DATASET).exists()


def test_a_device_that_is_not_there(planned):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert planned("plan", 900, "-c", "3d_fullres").code == 0
    assert "doctor" in mends(planned("train", 900, "3d_fullres", 0, "--device", "cuda"), code=5)


def test_predicting_without_a_model(umamba):
    mends(umamba("predict", "nowhere", "-i", ".", "-o", "out"), code=2)


def test_predicting_with_half_a_model(umamba):
    (umamba.folder / "model").mkdir()
    assert "plans.json" in mends(umamba("predict", "model", "-i", ".", "-o", "out"), code=7)


def test_an_unknown_option_is_told_in_json_too(umamba):
    answer = umamba("plan", "--nonsense", "--json")
    assert answer.code == 2
    assert answer.document()["error"]["code"] == "usage"


def test_an_unwritable_workspace(umamba, tmp_path):
    (tmp_path / "file").touch()
    mends(umamba("init", tmp_path / "file" / "folder"), code=5)


def test_a_demo_never_clears_a_folder_it_did_not_make(umamba):
    folder = umamba.folder / "precious"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    mends(umamba("demo", folder, "--quick"), code=2)
    assert (folder / "thesis.txt").exists()

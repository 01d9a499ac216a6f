"""`umamba select`: nnU-Net's comparison on real models, and what it lacks on made-up ones."""

import json
from pathlib import Path

import pytest

from tests.helpers import DATASET, Umamba, mends

PLANS = ("our3DPlans", "our3DNoMambaPlans")


@pytest.mark.slow
def test_the_best_its_postprocessing_and_the_way_to_predict_are_found(phantoms):
    assert phantoms("splits", 900, "--folds", 2).code == 0
    for plans in PLANS:
        command = ("train", 900, "3d_fullres", 0, 1, "-p", plans, "--epochs", 1, "--iterations", 1, "--npz")
        assert phantoms(*command, "--device", "cpu").code == 0
    results = Path(phantoms.variables["nnUNet_results"]) / DATASET

    answer = phantoms("select", 900, "--ensemble", "-j", 1, "--json")

    assert answer.code == 0, answer.err
    found = answer.document()
    assert found["folds"] == [0, 1]
    assert len(found["dice"]) == 3
    assert found["best"]["dice"] == max(found["dice"].values())
    assert found["best"]["dice_postprocessed"] >= found["best"]["dice"]
    assert Path(found["best"]["postprocessing_file"]).is_file()
    assert all(Path(model).parent == results for model in found["best"]["models"])
    assert (results / "inference_instructions.txt").is_file()

    first, second = (results / f"nnUNetTrainer_e1i1__{plans}__3d_fullres" for plans in PLANS)
    validations = [model / "fold_0/validation" for model in (first, second)]
    together = phantoms("ensemble", *validations, "-o", "RAW", "--model", first, "-j", 1)
    assert together.code == 0, together.err
    selected = Path(found["best"]["postprocessing_file"]).parent
    after = phantoms("postprocess", "RAW", "-o", "OUT", "--from", selected, "-j", 1, "--json")
    assert len(after.document()["files"]) == len(list(validations[0].glob("*.npz"))), after.err

    one = phantoms("select", 900, "-p", PLANS[1], "-f", 0, "-j", 1)

    assert one.code == 0, one.err
    assert f"best: nnUNetTrainer_e1i1__{PLANS[1]}__3d_fullres" in one.out
    assert "OUT -f 0" in one.out or "RAW -f 0" in one.out  # another fold is trained too
    (line,) = [line for line in one.out.splitlines() if "umamba predict" in line]
    images = Path(phantoms.variables["nnUNet_raw"]) / DATASET / "imagesTs"
    words = line.split()[1:]
    words[words.index("-i") + 1] = str(images)
    words[words.index("-o") + 1] = "NEW"
    assert phantoms(*words, "--device", "cpu", "--dry-run").code == 0


@pytest.fixture
def trained(umamba: Umamba) -> Umamba:
    """Results folders of two models with two folds each, as training leaves them, but for the contents."""
    workspace = umamba.folder / "umamba_workspace"
    preprocessed = workspace / "nnUNet_preprocessed" / DATASET
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps([{}, {}]))
    for plans in PLANS:
        (preprocessed / f"{plans}.json").write_text("{}")
        model = folder_of(umamba, plans)
        model.mkdir(parents=True)
        (model / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
        for fold in (0, 1):
            validation = model / f"fold_{fold}/validation"
            validation.mkdir(parents=True)
            write_summary(validation, {"1": 0.5, "2": 0.5})
            for ending in (".nii.gz", ".npz", ".pkl"):
                (validation / f"case_{fold}{ending}").touch()
    return umamba


def folder_of(umamba: Umamba, plans: str) -> Path:
    results = umamba.folder / "umamba_workspace/nnUNet_results"
    return results / DATASET / f"nnUNetTrainerUMamba_e3i20__{plans}__3d_fullres"


def write_summary(validation: Path, dice: dict[str, float]) -> None:
    mean = {name: {"Dice": value} for name, value in dice.items()}
    (validation / "summary.json").write_text(json.dumps({"mean": mean}))


def test_a_missing_fold_is_told_with_the_command_that_makes_it(trained):
    (folder_of(trained, PLANS[0]) / "fold_1/validation/summary.json").unlink()

    told = mends(trained("select", 900), code=7)

    assert f"fold 1 of nnUNetTrainerUMamba_e3i20__{PLANS[0]}__3d_fullres is not trained and validated" in told
    line = f"umamba train 900 3d_fullres 1 -p {PLANS[0]} -tr nnUNetTrainerUMamba --epochs 3 --iterations 20 --npz"
    assert line in told


def test_all_missing_folds_of_all_models_are_told(trained):
    answer = trained("select", 900, "-f", 0, "-f", 3, "-f", 4, "--json")

    assert answer.code == 7
    error = answer.document()["error"]
    assert error["code"] == "missing-fold"
    assert "folds 3, 4 of " in error["what"]
    assert "and folds of 1 more, are not" in error["what"]
    assert len([way for way in error["how"] if " 3 4 -p " in way]) == 2


@pytest.mark.parametrize("ending", [".npz", ".pkl"])
def test_missing_probabilities_are_told_where_ensembles_need_them(ending, trained):
    (folder_of(trained, PLANS[1]) / f"fold_0/validation/case_0{ending}").unlink()

    told = mends(trained("select", 900, "--ensemble"), code=7)

    assert "is without .npz" in told
    assert f"umamba train 900 3d_fullres 0 -p {PLANS[1]} " in told


def test_a_model_that_was_asked_for_and_is_not_there_is_told(trained):
    told = mends(trained("select", 900, "-p", PLANS[0], "-p", "otherPlans"), code=7)

    assert "there is no model otherPlans of" in told
    assert f"nnUNetTrainerUMamba_e3i20 {PLANS[0]} 3d_fullres" in told
    assert "there is no model our3DPlans 2d of" in mends(
        trained("select", 900, "-p", PLANS[0], "-c", "3d_fullres", "-c", "2d"), code=7
    )


def test_a_data_set_without_models_is_told(trained):
    for plans in PLANS:
        folder_of(trained, plans).rename(trained.folder / plans)

    assert "umamba train 900 CONFIG FOLD" in mends(trained("select", 900), code=7)
    assert trained("select", 17).code == 2


def test_folds_of_different_splits_are_not_mixed(trained):
    validation = folder_of(trained, PLANS[0]) / "fold_1/validation"
    (validation / "case_0.nii.gz").touch()
    assert "folds 0 and 1 have both predicted case_0" in mends(trained("select", 900), code=7)

    (validation / "case_0.nii.gz").unlink()
    for ending in (".nii.gz", ".npz", ".pkl"):
        (validation / f"case_7{ending}").touch()
    assert "has predicted case_7" in mends(trained("select", 900, "--ensemble"), code=7)


def test_a_class_that_no_case_has_is_told(trained):
    for fold in (0, 1):
        write_summary(folder_of(trained, PLANS[1]) / f"fold_{fold}/validation", {"1": 0.5, "2": float("nan")})

    assert "class 2 is in no validation case" in mends(trained("select", 900), code=7)


@pytest.mark.parametrize("gone", ["gt_segmentations", f"{PLANS[0]}.json"])
def test_preprocessed_data_that_are_gone_are_told(gone, trained):
    preprocessed = trained.folder / "umamba_workspace/nnUNet_preprocessed" / DATASET
    (preprocessed / gone).rename(trained.folder / gone)

    assert f"{gone} is needed and not there" in mends(trained("select", 900), code=3)

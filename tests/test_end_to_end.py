"""From plans to label maps, with our commands and with stock ones that know no variable of ours."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from tests.helpers import DATASET, ROOT, Answer, Umamba

PATCHES = {"2d": "16,16", "3d_fullres": "16,16,16"}


def images(phantoms: Umamba) -> Path:
    return Path(phantoms.variables["nnUNet_raw"]) / DATASET / "imagesTs"


def stock_predict(phantoms: Umamba, *arguments: object, out: str) -> Answer:
    program = Path(sys.executable).with_name("nnUNetv2_predict")
    sequential = ("--disable_tta", "-npp", 0, "-nps", 0, "-device", "cpu")
    return phantoms.run(program, "-d", 900, *arguments, "-i", images(phantoms), "-o", out, *sequential)


@pytest.mark.parametrize(
    ("network", "configuration"),
    [
        ("umamba_enc", "2d"),  # in 3D, tests/trainers goes the same way
        pytest.param("umamba_enc", "3d_fullres", marks=pytest.mark.slow),
        pytest.param("umamba_bot", "2d", marks=pytest.mark.slow),
        pytest.param("umamba_bot", "3d_fullres", marks=pytest.mark.slow),
    ],
)
def test_stock_commands_train_and_predict_with_our_plans(phantoms, network, configuration):
    planned = phantoms.plan_phantoms(network, configuration, PATCHES[configuration], "morePlans")
    assert planned.code == 0, planned.err

    script = ROOT / "tests" / "short_nnunet_training.py"
    trained = phantoms.run(sys.executable, script, 900, configuration, "all", "-p", "morePlans", "-device", "cpu")
    assert trained.code == 0, trained.err[-3000:]
    model = Path(phantoms.variables["nnUNet_results"]) / DATASET / f"nnUNetTrainer__morePlans__{configuration}"
    checkpoint = torch.load(model / "fold_all/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert any("mamba" in name for name in checkpoint["network_weights"])

    predicted = stock_predict(phantoms, "-c", configuration, "-f", "all", "-p", "morePlans", out="out")
    assert predicted.code == 0, predicted.err[-3000:]
    assert [path.name for path in (phantoms.folder / "out").glob("*.nii.gz")] == ["test_000.nii.gz"]


def test_planning_again_makes_nothing_again(phantoms):
    first, again = (
        phantoms.plan_phantoms("umamba_enc", "3d_fullres", "16,16,16", "morePlans", "--twin", "--json").document()
        for _ in range(2)
    )
    assert [entry["state"] for entry in first["plans"]] == ["written"] * 3
    assert again["steps"] == {"fingerprint": "reused", "preprocess 3d_fullres": "reused"}
    assert [entry["plans_name"] for entry in again["plans"]] == ["morePlans", "moreNoMambaPlans", "moreMatchedPlans"]
    assert [entry["state"] for entry in again["plans"]] == ["unchanged"] * 3


def test_a_twin_differs_in_nothing_but_the_mixer(phantoms):
    folder = Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET
    plans, twin = (json.loads((folder / f"{name}.json").read_text()) for name in ("our3DPlans", "our3DNoMambaPlans"))
    for entry in twin["configurations"].values():
        assert entry["architecture"]["arch_kwargs"].pop("mixer") == "none"
    for entry in plans["configurations"].values():
        assert entry["architecture"]["arch_kwargs"].pop("mixer") == "mamba"
    assert {**twin, "plans_name": "our3DPlans"} == plans


def test_our_commands_train_and_predict_and_stock_commands_use_the_result(phantoms):
    arguments = ("train", 900, "3d_fullres", 0, "-p", "our3DPlans", "--epochs", 2, "--iterations", 2, "--device", "cpu")
    trained = phantoms(*arguments, "--json")
    assert trained.code == 0, trained.err[-3000:]
    (run,) = trained.document()["runs"]
    assert run["epochs"] == 2
    assert run["validation_dice"] is not None
    folder = Path(run["folder"])
    assert folder.parent.name == "nnUNetTrainer_e2i2__our3DPlans__3d_fullres"
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["umamba_seg"]["trainer"] == "nnUNetTrainer_e2i2"
    assert [json.loads(line)["epoch"] for line in (folder / "progress.jsonl").read_text().splitlines()] == [0, 1]

    assert phantoms(*arguments, "--json").document()["runs"][0]["was_complete"]

    predict = ("predict", folder.parent, "--no-tta", "--device", "cpu")
    predicted = phantoms(*predict, "-i", images(phantoms), "-o", "ours", "--json")
    assert predicted.code == 0, predicted.err[-3000:]
    named = ("-c", "3d_fullres", "-f", "0", "-p", "our3DPlans", "-tr", "nnUNetTrainer_e2i2")
    stock = stock_predict(phantoms, *named, out="stock")
    assert stock.code == 0, stock.err[-3000:]
    ours, theirs = (SimpleITK.ReadImage(phantoms.folder / name / "test_000.nii.gz") for name in ("ours", "stock"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(ours), SimpleITK.GetArrayFromImage(theirs))
    assert ours.GetOrigin() == theirs.GetOrigin()
    record = json.loads((phantoms.folder / "ours/umamba_run.json").read_text())
    assert record["outputs"] == ["test_000.nii.gz"]
    assert len(record["inputs"]) == 1

    again = phantoms(*predict, "-i", images(phantoms), "-o", "ours", "--json")
    assert (again.code, again.document()["reused"]) == (0, 1)
    other = phantoms(*predict, "-i", images(phantoms), "-o", "ours", "--step", 1)
    assert other.code == 2, "label maps of another method are never replaced unasked"

    single = phantoms(*predict, "-i", images(phantoms) / "test_000_0000.nii.gz", "-o", "one/seg.nii.gz")
    assert single.code == 0, single.err[-3000:]
    written = sorted(path.name for path in (phantoms.folder / "one").iterdir())
    assert written == ["predictions.csv", "seg.nii.gz", "umamba_run.json"]


def test_a_trainer_of_ours_is_trained_by_name_and_its_model_needs_no_variable(phantoms):
    folder = Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET
    plans = json.loads((folder / "our3DPlans.json").read_text())
    block = plans["configurations"]["3d_fullres"]["architecture"]
    block["network_class_name"] = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    del block["arch_kwargs"]["mixer"]
    plain = folder / "plainPlans.json"
    plain.write_text(json.dumps({**plans, "plans_name": "plainPlans"}))

    trainer = ("-tr", "nnUNetTrainerUMambaEnc", "--epochs", 1, "--iterations", 1, "--no-validation", "--device", "cpu")
    trained = phantoms("train", 900, "3d_fullres", "all", "-p", "plainPlans", *trainer, "--json")
    assert trained.code == 0, trained.err[-3000:]
    assert json.loads(plain.read_text())["configurations"]["3d_fullres"]["architecture"] == block
    model = Path(trained.document()["runs"][0]["folder"]).parent
    written = json.loads((model / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]
    assert written["network_class_name"] == "umamba_seg.networks.UMambaEnc"

    phantoms.variables |= {"UMAMBA_NO_AUTOLOAD": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    named = ("-c", "3d_fullres", "-f", "all", "-p", "plainPlans", "-tr", "nnUNetTrainerUMambaEnc_e1i1")
    predicted = stock_predict(phantoms, *named, out="out")
    assert predicted.code == 0, predicted.err[-3000:]


def test_the_quick_demo_goes_the_whole_way(umamba):
    answer = umamba("demo", "here", "--quick", "--keep", "--json")
    assert answer.code == 0, answer.err[-3000:]
    networks = answer.document()["networks"]
    assert [network["name"] for network in networks] == ["umamba_bot", "umamba_bot_no_mamba"]
    assert all(0 <= network["mean_dice"] <= 1 and network["seconds"] > 0 for network in networks)
    folder = umamba.folder / "here"
    assert (folder / "overlay.png").stat().st_size > 10_000
    assert len(list((folder / "segmentations").glob("*/*.nii.gz"))) == 2
    assert (folder / "umamba_workspace/nnUNet_results").is_dir()

    again = umamba("demo", "here", "--quick")
    assert again.code == 0, again.err[-3000:]
    assert "umamba plan" in again.err
    assert not (folder / "umamba_workspace").exists()

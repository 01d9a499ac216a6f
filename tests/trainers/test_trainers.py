"""Named trainers through stock commands: trained with -tr, predicted without anything of ours in the environment."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import DATASET, ROOT
from umamba_seg.nnunet.trainers import OUR_TRAINERS

STOCK_KEYS = (
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage",
    "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin",
    "nonlin_kwargs",
)  # fmt: skip
NETWORKS = {
    "nnUNetTrainerUMambaBot": "umamba_seg.networks.UMambaBot",
    "nnUNetTrainerUMambaEnc": "umamba_seg.networks.UMambaEnc",
    "nnUNetTrainerUMambaEncNoAMP": "umamba_seg.networks.UMambaEnc",
    "nnUNetTrainerSegMamba": "umamba_seg.networks.SegMamba",
    "nnUNetTrainerSegMambaV2": "umamba_seg.networks.SegMambaV2",
    "nnUNetTrainerLightMUNet": "umamba_seg.networks.LightMUNet",
    "nnUNetTrainerUUMamba": "umamba_seg.networks.UMambaEnc",
    "nnUNetTrainerUUMambaPublished": "umamba_seg.networks.UMambaEnc",
    "nnUNetTrainerDemo": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
}
FAST = "nnUNetTrainerUUMamba"  # the one with a loop of its own


def stock_plans(phantoms, patch: int) -> None:
    """Write plans of nnU-Net's plain network beside ours."""
    folder = Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET
    plans = json.loads((folder / "our3DPlans.json").read_text())
    entry = plans["configurations"]["3d_fullres"]
    kwargs = entry["architecture"]["arch_kwargs"]
    stages = kwargs["n_stages"]
    kwargs["features_per_stage"] = [8 * 2**stage for stage in range(stages)]
    kwargs |= {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True}
    entry["patch_size"] = [patch] * 3
    entry["architecture"] |= {
        "network_class_name": NETWORKS["nnUNetTrainerDemo"],
        "arch_kwargs": {key: kwargs.get(key) for key in STOCK_KEYS},
    }
    (folder / "stockPlans.json").write_text(json.dumps({**plans, "plans_name": "stockPlans"}))


def test_every_trainer_of_ours_is_tested_here():
    assert set(NETWORKS) == set(OUR_TRAINERS)


@pytest.mark.parametrize(
    "trainer", [pytest.param(name, marks=[] if name == FAST else [pytest.mark.slow]) for name in OUR_TRAINERS]
)
def test_stock_commands_train_it_and_predict_without_it(phantoms, trainer):
    stock_plans(phantoms, patch=32 if "SegMamba" in trainer else 16)
    script = ROOT / "tests" / "short_nnunet_training.py"
    command = (script, 900, "3d_fullres", "all", "-p", "stockPlans", "-tr", trainer, "-device", "cpu")

    trained = phantoms.run(sys.executable, *command)

    assert trained.code == 0, trained.err[-3000:]
    model = Path(phantoms.variables["nnUNet_results"]) / DATASET / f"{trainer}__stockPlans__3d_fullres"
    written = json.loads((model / "plans.json").read_text())
    assert written["configurations"]["3d_fullres"]["architecture"]["network_class_name"] == NETWORKS[trainer]
    checkpoint = torch.load(model / "fold_all/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["umamba_seg"]["trainer"] == trainer
    assert all(x.isfinite().all() for x in checkpoint["network_weights"].values())

    program = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    images = Path(phantoms.variables["nnUNet_raw"]) / DATASET / "imagesTs"
    options = ("-f", "all", "--disable_tta", "-npp", 1, "-nps", 1, "-device", "cpu")
    predicted = phantoms.run(
        program, "-i", images, "-o", "out", "-m", model, *options, UMAMBA_NO_AUTOLOAD="1", nnUNet_extTrainer=""
    )
    assert predicted.code == 0, predicted.err[-3000:]
    assert [path.name for path in (phantoms.folder / "out").glob("*.nii.gz")] == ["test_000.nii.gz"]


@pytest.mark.slow
def test_uu_mamba_goes_on_with_the_weights_of_its_loss(phantoms):
    stock_plans(phantoms, patch=16)
    command = ("train", 900, "3d_fullres", "all", "-p", "stockPlans", "-tr", "nnUNetTrainerUUMamba", "--epochs", 1)
    trained = phantoms(*command, "--iterations", 3, "--no-validation", "--device", "cpu", "--json")
    assert trained.code == 0, trained.err[-3000:]
    folder = Path(trained.document()["runs"][0]["folder"])
    noted = torch.load(folder / "checkpoint_final.pth", weights_only=False)["umamba_seg"]
    assert noted["uncertainty"] == "learned"
    assert (noted["loss_state"]["log_theta_squared"] != 0).all()

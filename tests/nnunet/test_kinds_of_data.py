"""Data sets that are more than one channel and one set of classes, with stock commands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from tests.helpers import Umamba
from tests.nnunet import stock_commands

IGNORED = 6
OWN_LOSS = "nnUNetTrainerUUMamba"


def with_regions(raw: Path) -> None:
    """Classes within classes: all organs, the liver with what it holds, and the lesions in it."""
    describe(raw, labels={"background": 0, "organs": [1, 2, 3, 4, 5], "whole liver": [1, 4, 5], "lesion": 5})
    describe(raw, regions_class_order=[2, 1, 5])


def with_ignore_label(raw: Path) -> None:
    """The lower half of every training label is not annotated."""
    describe(raw, labels={**description(raw)["labels"], "ignore": IGNORED})
    for file in (raw / "labelsTr").iterdir():
        change(file, file, lambda voxels: np.where(np.arange(len(voxels))[:, None, None] < 8, IGNORED, voxels))


def with_two_channels(raw: Path) -> None:
    """A second image, normed in another way."""
    describe(raw, channel_names={"0": "CT", "1": "MR"})
    for file in raw.glob("images*/*_0000.nii.gz"):
        change(file, file.with_name(file.name.replace("_0000", "_0001")), lambda voxels: 1000 - voxels)


def description(raw: Path) -> dict:
    return json.loads((raw / "dataset.json").read_text())


def describe(raw: Path, **entries: object) -> None:
    (raw / "dataset.json").write_text(json.dumps(description(raw) | entries))


def change(source: Path, target: Path, function: Callable[[np.ndarray], np.ndarray]) -> None:
    image = SimpleITK.ReadImage(source)
    voxels = SimpleITK.GetArrayFromImage(image)
    changed = SimpleITK.GetImageFromArray(function(voxels).astype(voxels.dtype))
    changed.CopyInformation(image)
    SimpleITK.WriteImage(changed, target)


@pytest.fixture
def place(phantoms: Umamba) -> Umamba:
    """Raw phantoms, of which nothing is planned."""
    shutil.rmtree(stock_commands.folder(phantoms, "preprocessed"))
    return phantoms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change_raw", "channels", "heads", "configuration", "trainer"),
    [
        (with_regions, 1, 3, "2d", "nnUNetTrainer"),
        (with_regions, 1, 3, "3d_fullres", "nnUNetTrainer"),
        (with_regions, 1, 3, "3d_fullres", OWN_LOSS),
        (with_ignore_label, 1, 6, "2d", "nnUNetTrainer"),
        (with_ignore_label, 1, 6, "3d_fullres", "nnUNetTrainer"),
        (with_ignore_label, 1, 6, "3d_fullres", OWN_LOSS),
        (with_two_channels, 2, 6, "2d", "nnUNetTrainer"),
        (with_two_channels, 2, 6, "3d_fullres", "nnUNetTrainer"),
    ],
)
def test_stock_commands_train_and_predict_them(place, change_raw, channels, heads, configuration, trainer):
    change_raw(stock_commands.folder(place, "raw"))
    stock_commands.plan(place, configuration)

    variables = {"UMAMBA_NO_AUTOLOAD": "0"} if trainer == OWN_LOSS else {}
    model = stock_commands.train(place, configuration, "-tr", trainer, **variables)

    weights = torch.load(model / "fold_all/checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(x.isfinite().all() for x in weights.values())
    (first, *_), (*_, last) = ([x for name, x in weights.items() if part in name] for part in ("stem", "seg_layers"))
    assert first.shape[1] == channels
    assert last.shape[0] == heads
    found = set(stock_commands.predict(place, model).flat)
    assert found <= ({0, 1, 2, 5} if change_raw is with_regions else set(range(6)))
    assert IGNORED not in found

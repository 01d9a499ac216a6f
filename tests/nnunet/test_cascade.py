"""The cascade: a low resolution first, whose label maps are a channel of the full one; by stock commands."""

import shutil

import pytest
import torch

from tests.nnunet import stock_commands
from umamba_seg.datasets.phantoms import write_dataset

LOW, FULL = "3d_lowres", "3d_cascade_fullres"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["umamba_bot", "umamba_enc"])
def test_both_stages_are_planned_trained_and_predicted(phantoms, network):
    for kind in ("raw", "preprocessed"):
        shutil.rmtree(stock_commands.folder(phantoms, kind))
    write_dataset(stock_commands.folder(phantoms, "raw").parent, cases=3, test_cases=1, shape=(24, 48, 48))
    # so little memory that a patch shows a small part of an image
    configurations = stock_commands.plan(phantoms, LOW, FULL, network=network, vram_gb=0.005)
    assert configurations[FULL] == {"inherits_from": "3d_fullres", "previous_stage": LOW}

    first = stock_commands.train(phantoms, LOW)
    assert len(list((first / "predicted_next_stage" / FULL).glob("*.b2nd"))) == 3
    second = stock_commands.train(phantoms, FULL)

    stock_commands.predict(phantoms, first, out="low")
    found = stock_commands.predict(phantoms, second, "-prev_stage_predictions", "low")
    assert set(found.flat) <= set(range(6))
    stem = {}
    for model in (first, second):
        weights = torch.load(model / "fold_all/checkpoint_final.pth", weights_only=False)["network_weights"]
        stem[model] = next(x for name, x in weights.items() if "stem" in name).shape[1]
    assert (stem[first], stem[second]) == (1, 1 + 5), "each class of the first stage is a channel of the second"

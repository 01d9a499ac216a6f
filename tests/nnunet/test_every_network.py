"""Every network goes from plans to label maps with stock commands; those that users meet first do so in fast tests."""

import pytest
import torch

from tests.nnunet import stock_commands
from umamba_seg.networks import NETWORKS

ELSEWHERE = {"umamba_bot", "umamba_enc"}  # tests/test_end_to_end.py
LARGER = {"2d": (32, 32), "3d_fullres": (16, 32, 32)}  # one axis must be longer than the total stride


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in ELSEWHERE])
def test_stock_commands_train_and_predict_it(phantoms, network, configuration):
    options = {"patch": LARGER[configuration]} if network.startswith("segmamba") else {}
    planned = stock_commands.plan(phantoms, configuration, network=network, features=8, **options)[configuration]
    assert planned["architecture"]["network_class_name"] == NETWORKS[network].class_path

    model = stock_commands.train(phantoms, configuration)

    checkpoint = torch.load(model / "fold_all/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["plans"]["configurations"][configuration] == planned
    assert all(x.isfinite().all() for x in checkpoint["network_weights"].values())
    assert set(stock_commands.predict(phantoms, model).flat) <= set(range(6))

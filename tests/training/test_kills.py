"""Killed at any moment, a training loses at most its epoch: the same command ends where an uninterrupted run does."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import DATASET, Umamba

KILLS = 20
TRAIN = (
    "train", 900, "3d_fullres", "all", "-p", "our3DPlans", "--epochs", 4, "--iterations", 6, "--seed", 5,
    "--checkpoint-every", 1, "--no-validation", "--device", "cpu",
)  # fmt: skip


def results(phantoms: Umamba) -> Path:
    return Path(phantoms.variables["nnUNet_results"]) / DATASET


def final_weights(phantoms: Umamba) -> dict[str, torch.Tensor]:
    (file,) = results(phantoms).glob("*/fold_all/checkpoint_final.pth")
    return torch.load(file, weights_only=False)["network_weights"]


@pytest.mark.slow
def test_every_resume_after_a_kill_works_and_the_end_is_the_same(phantoms):
    chance = random.Random(0)
    assert phantoms(*TRAIN).code == 0
    expected = final_weights(phantoms)
    shutil.rmtree(results(phantoms))

    for _ in range(KILLS):
        process = phantoms.start(sys.executable, "-m", "umamba_seg.cli.main", *TRAIN)
        try:
            _, err = process.communicate(timeout=chance.uniform(5, 20))
            assert process.returncode == 0, err[-3000:]  # it was done already
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    answer = phantoms(*TRAIN)
    assert answer.code == 0, answer.err[-3000:]
    actual = final_weights(phantoms)
    assert all(torch.equal(x, actual[name]) for name, x in expected.items())
    (metrics,) = results(phantoms).glob("*/fold_all/progress.jsonl")
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [0, 1, 2, 3]

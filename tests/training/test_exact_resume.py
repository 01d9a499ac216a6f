"""A training that was stopped, or killed, and resumed ends with the weights of one that ran through."""

import json
import sys

import pytest

SCRIPT = """
import json, shutil, sys
from pathlib import Path
import torch
from umamba_seg import train
from umamba_seg.errors import Interrupted
from umamba_seg.training.run_state import read, request_stop

def run(report=lambda progress: None, **more):
    return train("900", "3d_fullres", "all", plans="our3DPlans", epochs=2, iterations=4, device="cpu", seed=7,
                 checkpoint_every=1, validate=False, report=report, **more)

def weights(folder):
    return torch.load(folder / "checkpoint_final.pth", weights_only=False)

if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    through = run(**options)
    expected = weights(through.folder)
    metrics = (through.folder / "progress.jsonl").read_text().splitlines()
    shutil.rmtree(through.folder)
    told = []
    for number in json.loads(sys.argv[1]):
        def stop_there(progress, number=number):
            if progress.done == number:
                request_stop(through.folder)
        try:
            run(stop_there, **options)
        except Interrupted as stop:
            told.append([stop.what, read(through.folder).now()])
    resumed = run(**options)
    actual = weights(resumed.folder)
    same = [torch.equal(x, actual["network_weights"][name]) for name, x in expected["network_weights"].items()]
    momentum = [torch.equal(x["momentum_buffer"], actual["optimizer_state"]["state"][i]["momentum_buffer"])
                for i, x in expected["optimizer_state"]["state"].items() if x.get("momentum_buffer") is not None]
    of_loss, again = (found["umamba_seg"].get("loss_state", {}) for found in (expected, actual))
    same_loss = of_loss.keys() == again.keys() and all(torch.equal(x, again[name]) for name, x in of_loss.items())
    print(json.dumps({
        "same": all(same) and all(momentum) and same_loss, "count": len(same), "momentum": len(momentum),
        "loss": [value for x in of_loss.values() for value in x.tolist()],
        "told": told, "state": read(resumed.folder).now(),
        "metrics": [[json.loads(line)[key] for key in ("train_loss", "val_loss", "pseudo_dice")] for line in metrics],
        "again": [[json.loads(line)[key] for key in ("train_loss", "val_loss", "pseudo_dice")]
                  for line in (resumed.folder / "progress.jsonl").read_text().splitlines()],
    }))
"""


def outcome(phantoms, stops, **options):
    answer = phantoms.run(sys.executable, "-c", SCRIPT, json.dumps(stops), json.dumps(options))
    assert answer.code == 0, answer.err[-3000:]
    return json.loads(answer.out.splitlines()[-1])


def test_stops_in_the_midst_of_epochs_change_nothing(phantoms):
    found = outcome(phantoms, [1, 6])  # in both epochs

    assert found["told"] == [["saved in epoch 1 of 2", "stopped"], ["saved in epoch 2 of 2", "stopped"]]
    assert found["same"]
    assert found["count"] > 10
    assert found["metrics"] == found["again"]
    assert found["state"] == "done"


def test_nor_do_they_to_sharpness_aware_steps_and_a_loss_that_learns(phantoms):
    found = outcome(phantoms, [1, 6], trainer="nnUNetTrainerUUMamba")

    assert found["same"]
    assert found["metrics"] == found["again"]
    assert len(found["loss"]) == 3
    assert all(found["loss"]), "every weight of the loss was trained, beginning at 0"
    assert found["momentum"] > found["count"] // 2


@pytest.mark.slow
def test_nor_do_they_in_16_bits(phantoms):
    assert outcome(phantoms, [3], precision="bf16")["same"]

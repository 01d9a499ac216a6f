"""Several processes on a CPU train as one does."""

import json
import sys
from pathlib import Path

import pytest

from tests.helpers import DATASET

STEPS = """
import json, os, sys
from pathlib import Path
import torch
from torch import distributed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from umamba_seg.training.managed import Length, Settings, managed
from umamba_seg.training.processes import in_processes, process_group, rank

FOLDER = Path(os.environ["nnUNet_preprocessed"]) / "Dataset900_Phantoms"

def steps(count):
    with process_group("cpu"):
        plans = json.loads((FOLDER / "our3DPlans.json").read_text()) | {"continue_training": False}
        description = json.loads((FOLDER / "dataset.json").read_text())
        kind = managed(nnUNetTrainer, length=Length(1, 1), settings=Settings(seed=3))
        run = kind(plans, "3d_fullres", "all", description, torch.device("cpu"))
        run.initialize()
        run.network.train()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, run.num_input_channels, 16, 16, 16, generator=generator)
        labels = torch.randint(3, (2, 1, 16, 16, 16), generator=generator).float()
        own = slice(rank(), rank() + 1) if count > 1 else slice(None)
        scales = run._get_deep_supervision_scales()
        targets = [labels[own][..., :: round(1 / z), :: round(1 / y), :: round(1 / x)] for z, y, x in scales]
        losses = []
        for _ in range(3):
            loss = torch.tensor(float(run.train_step({"data": images[own], "target": targets})["loss"]))
            if count > 1:
                distributed.all_reduce(loss)
            losses.append(loss.item() / count)
        weights = [x for x in run.network.state_dict().values()]
        return losses, torch.cat([x.flatten() for x in weights]).tolist()

if __name__ == "__main__":
    torch.set_num_threads(1)
    one, two = steps(1), in_processes(2, lambda: steps(2), steps, 2)
    print(json.dumps({"one": one[0], "two": two[0], "moved": max(abs(a - b) for a, b in zip(one[1], two[1]))}))
"""


def test_two_processes_have_the_loss_of_one_with_the_whole_batch(phantoms):
    script = phantoms.folder / "steps.py"
    script.write_text(STEPS)

    answer = phantoms.run(sys.executable, script)

    assert answer.code == 0, answer.err[-3000:]
    found = json.loads(answer.out.splitlines()[-1])
    assert found["two"] == pytest.approx(found["one"], abs=1e-4)
    assert found["moved"] < 1e-4
    assert found["one"][2] != found["one"][0]


TRAIN = ("train", 900, "3d_fullres", "all", "-p", "our3DPlans", "--epochs", 1, "--iterations", 2, "--device", "cpu")


@pytest.mark.slow
def test_our_launcher_trains_resumes_and_validates_in_two_processes(phantoms):
    answer = phantoms(*TRAIN, "--gpus", 2, "--json")

    assert answer.code == 0, answer.err[-3000:]
    (run,) = answer.document()["runs"]
    assert (Path(run["folder"]) / "checkpoint_final.pth").is_file()
    assert 0 <= run["validation_dice"] <= 1
    assert phantoms(*TRAIN, "--gpus", 2, "--json").document()["runs"][0]["was_complete"]


@pytest.mark.slow
def test_torchrun_on_two_machines_is_one_training(phantoms):
    """Simulated on one machine: two launchers with one process each."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1)
    meeting = ("--rdzv-backend", "static", "--rdzv-endpoint", "127.0.0.1:29533")
    program = ("-m", "umamba_seg.cli.main", *TRAIN, "--no-validation")
    nodes = [phantoms.start(*launcher, *meeting, "--node-rank", rank, *program) for rank in (0, 1)]
    answers = [node.communicate(timeout=600) for node in nodes]

    assert [node.returncode for node in nodes] == [0, 0], answers
    folder = Path(phantoms.variables["nnUNet_results"]) / DATASET
    assert len(list(folder.glob("*/fold_all/checkpoint_final.pth"))) == 1


def test_more_gpus_than_there_are_is_said_before_anything_begins(phantoms):
    answer = phantoms("train", 900, "3d_fullres", "all", "-p", "our3DPlans", "--gpus", 64, "--device", "cuda")

    assert answer.code in (2, 5)
    assert "GPU" in answer.err or "cuda" in answer.err

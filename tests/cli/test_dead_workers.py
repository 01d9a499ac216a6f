"""Workers of commands, killed for real. Those that load data for training: tests/training/test_loading.py."""

import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.helpers import DATASET, Answer, Umamba, first_child, mends
from umamba_seg.nnunet.train import TRAINED

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
KILLED = "was killed by the system (signal 9) while"


def killed(place: Umamba, *command: object, times: int) -> str:
    """The error text of a command whose workers are killed while they import what they need, which takes seconds."""
    process = place.start(sys.executable, "-m", "umamba_seg.cli.main", *command)
    while process.poll() is None:
        time.sleep(0.01)
        if times and (worker := first_child(process, "spawn_main")):
            time.sleep(0.5)  # until it is a worker for those who look
            with suppress(psutil.Error):  # the command has ended meanwhile, and it too
                worker.kill()
            times -= 1
    out, err = process.communicate()
    told = mends(Answer(process.returncode, out, err), code=6)
    assert "GB in use; " in told
    return told


def test_preprocessing_names_worker_and_case_and_goes_on(phantoms):
    command = ("preprocess", 900, "-p", "our3DPlans", "-c", "3d_fullres", "-j", 2)
    told = killed(phantoms, *command, "--overwrite", times=1)
    assert f"worker 1 of 2 {KILLED} preprocessing train_000; " in told
    assert "-j 1" in told
    assert phantoms(*command).code == 0


@pytest.mark.slow
def test_a_fingerprint_is_not_waited_for(phantoms):
    shutil.rmtree(Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET)
    told = killed(phantoms, "plan", 900, "-c", "2d", "-j", 2, times=1000)  # a pool has new ones at once
    assert f"a worker {KILLED} reading the cases; " in told


@pytest.mark.slow
def test_a_validation_is_not_waited_for_and_made_by_the_same_command(phantoms):
    short = ("--epochs", 1, "--iterations", 1, "--device", "cpu")
    command = ("train", 900, "3d_fullres", "all", "-p", "our3DPlans", *short)
    told = killed(phantoms, *command, times=1000)
    assert f"a worker {KILLED} writing predictions; " in told
    assert TRAINED in told

    again = phantoms(*command, "--json")
    assert again.code == 0, again.err[-3000:]
    (run,) = again.document()["runs"]
    assert run["was_complete"]
    assert run["validation_dice"] is not None

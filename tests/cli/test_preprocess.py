"""`umamba preprocess` as a user meets it. What it makes is tested in tests/planning."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import DATASET, Answer, first_child, mends


def test_what_is_missing_is_made_and_told(phantoms):
    folder = Path(phantoms.variables["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans_2d"
    shutil.rmtree(folder)

    dry = phantoms("preprocess", 900, "-p", "our2DPlans", "-c", "2d", "-j", 1, "--dry-run")
    assert dry.code == 0, dry.err
    assert f"{folder}: would make 5 of 5 cases" in dry.out
    assert "memory" in dry.err
    assert not folder.exists()

    made = phantoms("preprocess", 900, "-p", "our2DPlans", "-c", "2d", "-j", 1, "--json")
    assert made.code == 0, made.err
    (entry,) = made.document()["data"]
    assert (entry["state"], entry["made"], entry["cases"]) == ("made", 5, 5)

    again = phantoms("preprocess", 900, "-p", "our2DPlans")
    assert again.code == 0, again.err
    assert again.out.count("up to date") == 2


def test_plans_that_do_not_exist(phantoms):
    assert "our2DPlans" in mends(phantoms("preprocess", 900, "-p", "our2DPlan"), code=2)


def first_worker(process: subprocess.Popen[str]) -> psutil.Process:
    """The first worker that a command has started; it needs seconds for its imports."""
    for _ in range(6000):
        if worker := first_child(process, "spawn_main"):
            return worker
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9")
def test_a_worker_that_the_system_kills_is_told_with_its_case_and_memory(phantoms):
    command = ("preprocess", 900, "-p", "our3DPlans", "-c", "3d_fullres", "-j", 2, "--overwrite")
    process = phantoms.start(sys.executable, "-m", "umamba_seg.cli.main", *command)
    first_worker(process).kill()
    out, err = process.communicate(timeout=300)

    told = mends(Answer(process.returncode, out, err), code=6)
    assert "worker 1 of 2 was killed by the system (signal 9) while preprocessing train_000; " in told
    assert "GB in use" in told
    assert "-j 1" in told
    assert phantoms(*command[:-1]).code == 0

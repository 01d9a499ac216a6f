"""Whatever ends a training, the last complete checkpoint is there and the same command goes on."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import ROOT, Answer, Umamba, mends

LENGTH = ("--epochs", "2", "--iterations", "25", "--no-validation")
TRAIN = ("train", "900", "3d_fullres", "all", "-p", "our3DPlans", *LENGTH)
LITTLE_ROOM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
sys.argv = ["umamba", *sys.argv[1:]]
from umamba_seg.cli.main import main
main()
"""


def start(phantoms: Umamba) -> subprocess.Popen[str]:
    """A training that has made its first iteration."""
    process = phantoms.start(
        sys.executable, "-m", "umamba_seg.cli.main", *TRAIN, "--device", "cpu", "--progress", "json"
    )
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("step") == "train our3DPlans" and event["done"] > 0:
            return process
    raise AssertionError(process.communicate())


def end(process: subprocess.Popen[str], number: signal.Signals) -> Answer:
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out, err)


def run_folder(phantoms: Umamba) -> Path:
    (folder,) = Path(phantoms.variables["nnUNet_results"]).glob("*/*/fold_all")
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(phantoms, number):
    answer = end(start(phantoms), number)
    assert answer.code == 4, answer.err
    assert "run the same command" in answer.err
    assert "Traceback" not in answer.err
    checkpoint = torch.load(run_folder(phantoms) / "checkpoint_latest.pth", weights_only=False)
    assert checkpoint["current_epoch"] == 0
    assert all(len(values) == 0 for values in checkpoint["logging"].values())

    resumed = phantoms(*TRAIN, "--device", "cpu", "--json")
    assert resumed.code == 0, resumed.err[-3000:]
    (run,) = resumed.document()["runs"]
    assert run["resumed_from"].endswith("checkpoint_latest.pth")
    assert (run_folder(phantoms) / "checkpoint_final.pth").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes to set")
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(phantoms):
    assert end(start(phantoms), signal.SIGINT).code == 4
    latest = run_folder(phantoms) / "checkpoint_latest.pth"
    before = hashlib.sha256(latest.read_bytes()).hexdigest()

    answer = phantoms.run(sys.executable, "-c", LITTLE_ROOM, *TRAIN, "--device", "cpu")
    assert "no room left" in mends(answer, code=6)
    assert hashlib.sha256(latest.read_bytes()).hexdigest() == before
    assert not [path for path in latest.parent.iterdir() if path.name.endswith(".part")]


def test_a_damaged_checkpoint_is_named(phantoms):
    assert end(start(phantoms), signal.SIGINT).code == 4
    latest = run_folder(phantoms) / "checkpoint_latest.pth"
    latest.write_bytes(latest.read_bytes()[:1000])
    assert "checkpoint_latest.pth" in mends(phantoms(*TRAIN, "--device", "cpu"), code=7)


def test_our_checkpoint_has_every_key_of_the_stock_one(phantoms):
    """The host builds its dictionary inside save_checkpoint, so ours repeats it; this fails when the host's grows."""
    script = ROOT / "tests" / "short_nnunet_training.py"
    assert (
        phantoms.run(sys.executable, script, 900, "3d_fullres", "all", "-p", "our3DPlans", "-device", "cpu").code == 0
    )
    stock = torch.load(run_folder(phantoms) / "checkpoint_final.pth", weights_only=False)
    short = ("train", 900, "3d_fullres", "1", "-p", "our3DPlans", "--epochs", 1, "--iterations", 1, "--no-validation")
    answer = phantoms(*short, "--device", "cpu", "--json")
    assert answer.code == 0, answer.err[-3000:]
    ours = torch.load(Path(answer.document()["runs"][0]["folder"]) / "checkpoint_final.pth", weights_only=False)
    assert ours.keys() == stock.keys() | {"umamba_seg"}
    assert ours["network_weights"].keys() == stock["network_weights"].keys()
    assert ours["init_args"].keys() == stock["init_args"].keys()

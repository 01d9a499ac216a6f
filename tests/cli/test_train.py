"""`umamba train`, `status` and `stop`: what they say and refuse."""

import json
from pathlib import Path

import pytest

from tests.helpers import mends
from umamba_seg.cli.train import seconds_of
from umamba_seg.errors import UsageError
from umamba_seg.training.run_state import STOP_FILE, RunState, own_identity, read, write

SHORT = ("train", 900, "3d_fullres", "all", "-p", "our3DPlans", "--epochs", 1, "--iterations", 1, "--no-validation")


@pytest.mark.parametrize(("limit", "seconds"), [("1:30", 5400), ("0:01", 60), ("100:00", 360000)])
def test_a_time_limit_is_hours_and_minutes(limit, seconds):
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize("limit", ["90", "1:60", "0:00", "-1:00", "1:2:3", ""])
def test_what_is_no_time_limit_is_refused(limit):
    with pytest.raises(UsageError, match="hours:minutes"):
        seconds_of(limit)


def test_a_run_tells_its_state_and_another_seed_is_refused_until_restart(phantoms):
    done = phantoms(*SHORT, "--seed", 1, "--device", "cpu", "--json")
    assert done.code == 0, done.err[-3000:]
    (run,) = done.document()["runs"]
    assert run["seed"] == 1

    (told,) = phantoms("status", 900, "--json").document()["runs"]
    assert (told["state"], told["epoch"], told["epochs"]) == ("done", 1, 1)
    assert told["folder"] == run["folder"]

    assert "begun with seed 1, not 2" in mends(phantoms(*SHORT, "--seed", 2, "--device", "cpu"), code=2)
    assert "not running: done" in mends(phantoms("stop", run["folder"]), code=2)

    again = phantoms(*SHORT, "--seed", 2, "--restart", "--device", "cpu", "--json")
    assert again.code == 0, again.err[-3000:]
    (aside,) = Path(run["folder"]).glob("before_restart_*")
    assert (aside / "checkpoint_final.pth").is_file()
    lines = (Path(run["folder"]) / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0]


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    state = RunState("running", **own_identity(), heartbeat=0.0, epoch=3, epochs=10)
    write(tmp_path, state)
    assert read(tmp_path).now() == "running"

    write(tmp_path, RunState("running", **own_identity() | {"started": 1.0}, heartbeat=0.0, epoch=3, epochs=10))
    assert read(tmp_path).now() == "killed"

    write(tmp_path, RunState("running", **own_identity() | {"host": "elsewhere"}, heartbeat=0.0, epoch=3, epochs=10))
    assert read(tmp_path).now() == "killed"


def test_stop_leaves_a_wish_where_a_run_looks_for_it(tmp_path, umamba):
    write(tmp_path, RunState("running", **own_identity(), heartbeat=0.0, epoch=3, epochs=10))

    assert umamba("stop", tmp_path).code == 0

    assert (tmp_path / STOP_FILE).exists()
    assert "no training of ours" in mends(umamba("stop", tmp_path / "nowhere"), code=7)


def test_pretrained_weights_of_another_network_are_refused_by_name(phantoms, tmp_path):
    done = phantoms(*SHORT, "--device", "cpu", "--json")
    checkpoint = Path(done.document()["runs"][0]["folder"]) / "checkpoint_final.pth"
    fits = (*SHORT[:2], "3d_fullres", "0", *SHORT[4:], "--pretrained", checkpoint, "--device", "cpu")
    assert phantoms(*fits).code == 0  # read without running code from it

    other = ("train", 900, "2d", "0", "-p", "our2DPlans", "--epochs", 1, "--iterations", 1, "--no-validation")
    assert "another shape" in mends(phantoms(*other, "--pretrained", checkpoint, "--device", "cpu"), code=7)
    missing = mends(phantoms(*other, "--pretrained", tmp_path / "none.pth", "--device", "cpu"), code=7)
    assert "no such checkpoint" in missing

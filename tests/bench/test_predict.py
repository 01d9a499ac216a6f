"""`umamba bench predict`: that it counts what it says, with programs and images that take little time."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from umamba_seg.bench import predict
from umamba_seg.bench.predict import DICE, SHARE, Case, NetworkClock, agreement, measure, run
from umamba_seg.errors import MachineError, UsageError

SPAWNS = """
import multiprocessing, sys, time

def burn(seconds):
    while time.process_time() < seconds:
        pass

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(burn, [0.6, 0.6], chunksize=1)
"""
HOLDS = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; a = b\"x\" * 10**8; time.sleep(1)'])"
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(images=2, shape=(20, 12, 14), tile=(16, 16, 16), features=(4, 8), cpu="at least 1")
    monkeypatch.setitem(predict.CASES, "tiny", case)


def test_the_seconds_of_spawned_workers_count(tmp_path):
    file = tmp_path / "spawns.py"
    file.write_text(SPAWNS)

    cost = run([sys.executable, file])

    assert 1.0 < cost.cpu < 10


def test_the_memory_of_processes_of_a_process_counts():
    assert run([sys.executable, "-c", HOLDS]).memory > 10**8


def test_a_program_that_fails_is_told_with_its_last_word():
    with pytest.raises(MachineError, match="failed: no such luck"):
        run([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_the_clock_of_the_network_leaves_other_threads_out():
    """What the network and the other thread take is, together, what the process takes, however busy the machine is."""
    layer, image, burned = torch.nn.Conv3d(8, 8, 3), torch.randn(1, 8, 40, 40, 40), []
    stop, has_burned, is_measured = (threading.Event() for _ in range(3))

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))
        burned.append(time.thread_time())
        has_burned.set()
        is_measured.wait()  # one that begins and ends while the clock runs may still be the system's, and would count

    process, clock = time.process_time(), NetworkClock()
    other = threading.Thread(target=burn)
    other.start()
    with torch.no_grad():
        for _ in range(10):
            layer(image)
    stop.set()
    has_burned.wait()
    network, process = clock.seconds(), time.process_time() - process
    is_measured.set()
    other.join()

    assert burned[0] > 0.05
    assert network + burned[0] == pytest.approx(process, rel=0.1, abs=0.05)


def test_threads_that_end_while_the_clock_runs_take_nothing_from_it():
    """Neither while they are Python's, nor in the moment after, in which only the system knows them."""

    def burn() -> None:
        while time.thread_time() < 0.02:
            sum(range(1000))

    seconds = []
    for _ in range(20):
        others = [threading.Thread(target=burn) for _ in range(4)]
        for other in others:
            other.start()
        others[0].join()
        clock = NetworkClock()
        for other in others[1:]:
            other.join()
        seconds.append(clock.seconds())

    assert min(seconds) > 0
    assert max(seconds) < 0.02


def test_agreement_is_that_worked_out_by_hand(tmp_path):
    for name, values in {"theirs": [0, 0, 1, 1, 1, 2], "ours": [0, 1, 1, 1, 1, 2]}.items():
        (tmp_path / name).mkdir()
        image = SimpleITK.GetImageFromArray(np.array(values, np.uint8).reshape(2, 3, 1))
        SimpleITK.WriteImage(image, str(tmp_path / name / "a.nii.gz"))

    share, dice = agreement(tmp_path / "theirs", tmp_path / "ours", classes=4)

    assert share == 5 / 6
    assert dice == 6 / 7


@pytest.mark.usefixtures("tiny")
def test_a_case_that_only_we_run_gives_our_seconds_and_memory(tmp_path):
    rows = {row.what: row for row in measure(["tiny"], turns=1, only_ours=True, folder=tmp_path)}

    assert rows["CPU seconds"].bound == "at least 1"
    assert all(row.theirs is None for row in rows.values())
    assert all(rows[what].ours > 0 for what in ("CPU seconds", "CPU seconds of the network", "peak memory in GB"))
    assert {SHARE, DICE}.isdisjoint(rows)
    assert sorted(path.name for path in (tmp_path / "tiny/umamba").glob("*.nii.gz")) == [
        "case_00.nii.gz",
        "case_01.nii.gz",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_both_programs_give_the_same_label_maps(tmp_path):
    rows = {row.what: row for row in measure(["tiny"], turns=1, folder=tmp_path)}

    assert rows[SHARE].ours == rows[DICE].ours == 1
    assert rows["CPU seconds"].ratio > 1


@pytest.mark.parametrize(("name", "tiles"), {"small": 1, "thirty": 30, "medium": 27, "large": 384}.items())
def test_cases_have_the_tiles_that_they_are_known_by(name, tiles):
    assert predict._Work(predict.CASES[name], Path(), Path()).tiles == tiles


def test_a_case_that_is_not_there_is_told():
    with pytest.raises(UsageError, match="no case 'huge'"):
        next(measure(["huge"]))

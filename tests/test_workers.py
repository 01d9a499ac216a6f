"""What is said of dead workers, and that nobody waits for them."""

import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import pytest

from umamba_seg import workers
from umamba_seg.errors import DataError, MachineError, ResourceError
from umamba_seg.workers import Memory, Worker, ended, told_of_deaths

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
MEMORY = Memory(31.2 * 2**30, 32 * 2**30)
WORKER = Worker(2, 4, "worker", "resampling", "liver_017")
WORDS = {"where": "folder", "fewer": "-j 1", "stays": "what is done stays"}


@pytest.mark.parametrize(
    ("exit_code", "case", "kind"),
    [
        (-signal.SIGKILL, "a", ResourceError),
        (-signal.SIGBUS, "a", ResourceError),
        (-signal.SIGSEGV, "a", DataError),
        (-signal.SIGSEGV, "", MachineError),
        (-signal.SIGTERM, "a", MachineError),
        (3, "a", DataError),
        (3, "", MachineError),
        (-999, "a", MachineError),
        (None, "", ResourceError),
    ],
)
def test_want_of_memory_a_case_and_the_machine_are_told_apart(exit_code, case, kind):
    assert type(ended(Worker(1, 2, "worker", "reading", case), exit_code, MEMORY, **WORDS)) is kind


def test_worker_case_signal_and_memory_are_in_one_sentence():
    told = ended(WORKER, -signal.SIGKILL, MEMORY, **WORDS)
    assert told.what == (
        "worker 2 of 4 was killed by the system (signal 9) while resampling liver_017; 31.2 of 32.0 GB in use; "
        "what is done stays"
    )
    assert "shared memory" in ended(WORKER, -signal.SIGBUS, MEMORY, **WORDS).how[0]


def test_a_container_that_is_full_counts_before_a_machine_that_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "_CGROUP", tmp_path)
    machine = workers.memory_in_use()
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "memory.current").write_text("1000")
    assert workers.memory_in_use().total == machine.total
    (tmp_path / "memory.max").write_text("1024")
    assert workers.memory_in_use() == Memory(1000, 1024)


def die(number: int, _: object) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def in_background():
    """As nohup starts programs from a script: deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("seconds", [workers.SECONDS_BETWEEN_LOOKS, 5.0], ids=["often", "after its death"])
def test_a_pool_whose_worker_dies_is_not_waited_for(in_background, monkeypatch, seconds):
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", seconds)
    began = time.monotonic()
    with (
        pytest.raises(ResourceError, match=r"a worker was killed by the system \(signal 9\) while reading; "),
        told_of_deaths("reading", **WORDS),
        multiprocessing.get_context("spawn").Pool(2) as pool,
    ):
        pool.map(partial(die, int(signal.SIGKILL)), range(2))
    assert time.monotonic() - began < 120


def test_what_nnunet_says_of_a_death_that_nobody_saw_is_said_better():
    with pytest.raises(ResourceError, match="a worker was gone"), told_of_deaths("reading", **WORDS):
        raise RuntimeError("Some background worker is 6 feet under. Yuck.")
    with pytest.raises(RuntimeError, match="something else"), told_of_deaths("reading", **WORDS):
        raise RuntimeError("something else")


def test_what_ends_well_or_by_ctrl_c_is_left_alone():
    with told_of_deaths("reading", **WORDS), multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
    with told_of_deaths("reading", **WORDS):
        signal.raise_signal(signal.SIGUSR1)  # of somebody else
    with pytest.raises(KeyboardInterrupt), told_of_deaths("reading", **WORDS):
        signal.raise_signal(signal.SIGINT)

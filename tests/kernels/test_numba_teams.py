"""Threads that share blocks of channels give the bits of one thread, and never wait for one that is not there."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.kernels.scan_cases import Case, covering, equal, outcome, single
from tests.kernels.volume_cases import OFTEN_LEFT_OUT, VolumeCase
from umamba_seg.kernels import scan_volume, selective_scan

pytest.importorskip("numba")

from umamba_seg.kernels.numba import work

LONG = Case(1, 700, 5, 16, layout="bld")  # more tiles than a ring holds
SCANS = [
    LONG,
    replace(LONG, layout="bdl", reverse=True),
    replace(LONG, channels=40, states=17, layout="bdl"),
    replace(LONG, channels=33, states=9),
    replace(LONG, channels=20, states=40, delta_softplus=False),
    replace(LONG, batch=2, channels=2, states=32, B=0),
    replace(LONG, channels=4, B=2, C=4),
    replace(LONG, channels=3, C=0, left_out=("z", "D", "initial_state")),
    replace(LONG, ends=(0, 10, 10, 600, 700)),
    replace(LONG, length=1),
]


def as_volume(options: dict[str, Any]) -> VolumeCase:
    left_out = tuple(name for name in OFTEN_LEFT_OUT if not options.pop(f"has {name}"))
    return VolumeCase((9, 71), ("yx", "-x-y"), batch=1, left_out=left_out, **options)


VOLUMES = [
    as_volume(options)
    for options in covering(
        merge=("sum", "mean", "stack", "concat"),
        channels=(6, 24),
        states=(16, 13),
        reset=(None, 333),
        weights=("", "kbd"),
        exclusive=(None, "own"),
        exact_gain=(False, True),
        decay_scale=(None, (0.5, 2.0)),
        delta_softplus=(True, False),
        **{f"has {name}": (True, False) for name in OFTEN_LEFT_OUT},
    )
]


@pytest.fixture
def teams(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small scans get as many threads as there are processors, and there are many; how many each team had."""
    made: list[int] = []

    class Teams(work.Teams):
        def __init__(self, blocks: Any, members: int, *sizes: Any, **named: Any) -> None:
            made.append(members)
            super().__init__(blocks, members, *sizes, **named)

    monkeypatch.setattr(work, "UPDATES_OF_A_THREAD", 1)
    monkeypatch.setattr(work, "processors", lambda: 64)
    monkeypatch.setattr(work, "Teams", Teams)
    return made


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_a_team_gives_the_bits_of_one_thread(case, teams):
    def scan(**given):
        return selective_scan(**given, return_last_state=True, backend="numba")

    torch.set_num_threads(1)
    alone = outcome(scan, single(case), **case.options())
    assert not teams

    for threads in (3, 5, 16):
        torch.set_num_threads(threads)
        assert equal(alone, outcome(scan, single(case), **case.options()))
    assert teams


@pytest.mark.parametrize("case", VOLUMES, ids=str)
def test_a_team_gives_the_bits_of_one_thread_with_all_options_of_a_volume(case, teams):
    def scan(**given):
        return scan_volume(**given, return_last_state=True, backend="numba", spatial_dims=2)

    torch.set_num_threads(1)
    alone = outcome(scan, single(case), **case.options())

    torch.set_num_threads(24)
    assert equal(alone, outcome(scan, single(case), **case.options()))
    assert len(teams) == 4  # two routes, forward and backward


def test_16_bit_tensors_are_shared_out_too(teams):
    tensors = {name: x.bfloat16() for name, x in single(LONG).items()}

    def scan(**given):
        return selective_scan(**given, return_last_state=True, backend="numba")

    torch.set_num_threads(1)
    alone = outcome(scan, tensors, **LONG.options())
    torch.set_num_threads(4)

    assert equal(alone, outcome(scan, tensors, **LONG.options()))
    assert teams == [4, 4]


@pytest.mark.parametrize(
    ("blocks", "states", "threads", "expected"),
    [
        (4, 16, 4, 1),
        (4, 16, 11, 1),  # two would gain little
        (4, 16, 15, 1),  # a third one would not make the largest share less
        (4, 16, 16, 4),
        (4, 16, 64, 4),
        (1, 12, 3, 3),
        (1, 8, 64, 1),
        (1, 20, 4, 3),
        (1, 32, 7, 4),
        (0, 16, 16, 4),
    ],
)
def test_a_team_has_no_more_members_than_make_the_work_of_each_less(monkeypatch, blocks, states, threads, expected):
    monkeypatch.setattr(work, "processors", lambda: 64)

    assert work.members_for(blocks, states, threads) == expected


def test_there_are_no_more_members_than_processors(monkeypatch):
    monkeypatch.setattr(work, "processors", lambda: 4)

    assert work.members_for(1, 16, 64) == 4
    assert work.members_for(2, 16, 64) == 1


@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_thread_that_cannot_be_started_is_told_and_nobody_waits_for_it(monkeypatch, teams, started):
    start, count = threading.Thread.start, [0]

    def start_few(self):
        count[0] += 1
        if count[0] > started:
            raise RuntimeError("can't start new thread")
        start(self)

    tensors = {name: x for name, x in single(LONG).items() if name != "initial_state"}
    torch.set_num_threads(4)
    monkeypatch.setattr(threading.Thread, "start", start_few)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        selective_scan(**tensors, layout="bld", backend="numba")
    assert teams == [4]
    assert all(other is threading.current_thread() or other.daemon for other in threading.enumerate())

"""Three stages at once: order, faults, stopping."""

import threading
import time

import pytest

from umamba_seg.inference.pipeline import Pipeline


def test_results_come_in_order_and_the_middle_stage_runs_here():
    threads = set()

    def work(item):
        threads.add(threading.current_thread())
        return item * 10

    stages = Pipeline(lambda item: item + 1, work, lambda made: f"<{made}>")

    assert list(stages.run([1, 2, 3, 4])) == ["<20>", "<30>", "<40>", "<50>"]
    assert threads == {threading.main_thread()}


def test_stages_overlap():
    """While one item is worked on, the next is prepared and the last stored."""
    meeting = threading.Barrier(2, timeout=20)
    prepared = []

    def prepare(item):
        if item == 1:
            meeting.wait()
        prepared.append(item)
        return item

    def work(item):
        if item == 0:
            meeting.wait()
        return item

    assert list(Pipeline(prepare, work, lambda made: made).run([0, 1])) == [0, 1]
    assert prepared == [0, 1]


@pytest.mark.parametrize("stage", ["prepare", "work", "store"])
def test_what_a_stage_raises_is_raised_and_threads_end(stage):
    def broken(item):
        raise RuntimeError(stage)

    stages = {name: (broken if name == stage else lambda item: item) for name in ("prepare", "work", "store")}
    before = threading.active_count()

    with pytest.raises(RuntimeError, match=stage):
        list(Pipeline(**stages).run(range(5)))
    assert threading.active_count() == before


def test_what_was_made_is_stored_although_the_next_item_fails():
    stored = []

    def work(item):
        if item == 1:
            raise KeyboardInterrupt
        return item

    def store(made):
        time.sleep(0.2)
        stored.append(made)
        return made

    stages = Pipeline(lambda item: item, work, store)
    with pytest.raises(KeyboardInterrupt):
        list(stages.run([0, 1, 2]))

    assert stored == [0]
    assert stages.stored() == [0]


def test_no_more_is_prepared_ahead_than_was_allowed():
    ahead = []

    def work(item):
        time.sleep(0.05)
        ahead.append(len(prepared) - item)
        return item

    prepared: list[int] = []
    stages = Pipeline(lambda item: prepared.append(item) or item, work, lambda made: made, ahead=1)
    list(stages.run(range(6)))

    assert max(ahead) <= 3  # the one at work, the one that waits, the one that is being prepared

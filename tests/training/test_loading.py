"""Loading workers that end too early: told with number, case, exception or signal, and memory; nothing is lost."""

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.helpers import DATASET, Umamba, first_child, mends
from tests.training.test_interruptions import TRAIN, end, run_folder, start
from umamba_seg.training.loading import CHARACTERS_OF_A_FAULT, Words
from umamba_seg.training.run_state import read

MEMORY = r"[\d.]+ of [\d.]+ GB in use"
TRAINER = """
import os
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class Dying:
    def __init__(self, transforms):
        self.transforms, self.calls = transforms, 0

    def __call__(self, **sample):
        self.calls += 1
        if self.calls == 5:
            ENDING
        return self.transforms(**sample)

class nnUNetTrainerDying(nnUNetTrainer):
    @staticmethod
    def get_training_transforms(*settings, **options):
        return Dying(nnUNetTrainer.get_training_transforms(*settings, **options))
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture
def loading(phantoms: Umamba) -> Umamba:
    """The phantoms, loaded by two workers."""
    phantoms.variables["nnUNet_n_proc_DA"] = "2"
    return phantoms


def test_a_worker_that_the_system_kills_costs_no_iteration(loading):
    process = start(loading)
    worker = first_child(process, "umamba_seg.cli.main")  # a fork of it
    assert worker is not None
    worker.kill()
    answer = end(process, signal.SIGCONT)  # which does nothing but wait

    told = mends(answer, code=6)
    assert re.search(rf"loading worker 1 of 2 was killed by the system \(signal 9\).*; {MEMORY}; what was saved", told)
    assert "nnUNet_n_proc_DA=1" in told
    state = read(run_folder(loading))
    assert state.now() == "failed"
    assert "signal 9" in state.cause

    again = loading(*TRAIN, "--device", "cpu", "--json")
    assert again.code == 0, again.err[-3000:]
    assert again.document()["runs"][0]["resumed_from"].endswith("checkpoint_latest.pth")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("os.kill(os.getpid(), 9)", 6, rf"was killed by the system \(signal 9\) while loading train_\d+; {MEMORY}; "),
        ("os.abort()", 3, rf"was ended by signal 6 \(SIGABRT\) while loading train_\d+; {MEMORY}; "),
        ("raise MemoryError('too large')", 6, rf"failed while loading train_\d+: MemoryError: too large; {MEMORY}"),
        ("raise KeyError('angle')", 1, r"failed while loading train_\d+: KeyError: 'angle'"),
    ],
    ids=["killed", "crashed", "memory", "raised"],
)
def test_the_end_of_a_worker_is_told_with_its_case(loading, tmp_path, ending, code, told):
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / "dying.py").write_text(TRAINER.replace("ENDING", ending))
    loading.variables["nnUNet_extTrainer"] = str(folder)

    answer = loading(*TRAIN, "--device", "cpu", "-tr", "nnUNetTrainerDying")

    assert re.search(rf"loading worker \d of 2 {told}", mends(answer, code=code))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_damaged_case_is_named(loading, workers):
    folder = Path(loading.variables["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans_3d_fullres"
    file = folder / "train_002.b2nd"
    whole = file.read_bytes()
    file.write_bytes(whole[:300] + bytes(len(whole) - 300))

    told = mends(loading(*TRAIN, "--device", "cpu", nnUNet_n_proc_DA=workers), code=3)

    assert "train_002" in told
    assert "Error" in told
    assert "umamba preprocess" in told
    assert ("loading worker" in told) is (workers != "0")


def test_the_first_of_several_faults_is_found_and_half_a_word_is_none():
    words = Words(3)
    words.say(0, case="b", fault="late", time=2.0)
    words.say(1, case="c")
    words.say(2, case="a", fault="\N{BLACK CHESS KNIGHT}" * CHARACTERS_OF_A_FAULT, time=1.0)
    assert words.first_fault() == (2, words.of(2))
    assert words.of(2)["case"] == "a"

    words._slots[1].value = b'{"case": "c'
    assert words.of(1) == {}

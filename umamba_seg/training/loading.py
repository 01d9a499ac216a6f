"""Loading workers that leave word of what they do, so that the end of one is told with its case and first exception.

nnU-Net knows only that some worker is gone. Its trainer makes loaders and their processes within one method, by the
names they have in its module; while that method runs, ours stand under these names.
"""

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process
from multiprocessing.sharedctypes import RawArray
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as host  # noqa: N813  (the module, not its class)
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from umamba_seg.errors import DataError, UmambaError
from umamba_seg.workers import MemoryWatch, Worker, ended, failed

BYTES_OF_A_WORD, CHARACTERS_OF_A_FAULT = 4096, 500
SECONDS_TO_DIE = 1.0
FEWER = "nnUNet_n_proc_DA"


class ToldLoading(host.nnUNetTrainer):
    """A trainer whose loading workers are told of when they end."""

    def get_dataloaders(self) -> tuple[Any, Any]:
        """As the host's, of ours."""
        with _ours_in_the_host() as workers:
            try:
                loaders: tuple[Any, Any] = super().get_dataloaders()
            except BaseException:  # those of training run already when those of validation fail
                for started in workers:
                    started._finish()
                raise
        return loaders


@contextmanager
def _ours_in_the_host() -> Iterator[list["ToldWorkers"]]:
    before = host.nnUNetDataLoader, host.NonDetMultiThreadedAugmenter
    made: list[ToldWorkers] = []

    def make(*settings: Any, **options: Any) -> ToldWorkers:
        made.append(ToldWorkers(*settings, **options))
        return made[-1]

    host.nnUNetDataLoader, host.NonDetMultiThreadedAugmenter = ToldLoader, make
    try:
        yield made
    finally:
        host.nnUNetDataLoader, host.NonDetMultiThreadedAugmenter = before


class Words:
    """The last word of each worker, in memory that outlives it; without a lock, which a dead worker might hold."""

    def __init__(self, workers: int) -> None:
        self._slots = [RawArray("c", BYTES_OF_A_WORD) for _ in range(workers)]

    def say(self, worker: int, **word: object) -> None:
        """Replace what a worker has said."""
        self._slots[worker].value = json.dumps(word).encode()[: BYTES_OF_A_WORD - 1]

    def of(self, worker: int) -> dict[str, Any]:
        """What a worker has said last; empty where it was cut off in the midst of it."""
        try:
            word: dict[str, Any] = json.loads(self._slots[worker].value)
        except ValueError:
            return {}
        return word

    def first_fault(self) -> tuple[int, dict[str, Any]] | None:
        """The worker that failed before all others, and its word."""
        faults = [(worker, word) for worker in range(len(self._slots)) if "fault" in (word := self.of(worker))]
        return min(faults, key=lambda found: found[1]["time"], default=None)


class ToldLoader(nnUNetDataLoader):
    """nnU-Net's loader; says which case it is at, and why it fails."""

    def __init__(self, data: Any, *settings: Any, **options: Any) -> None:
        super().__init__(data, *settings, **options)
        self.words = Words(max(1, get_allowed_n_proc_DA()))
        self.folder: str = data.source_folder
        self.case = ""
        self._data = _NotedCases(data, self)

    def begin(self, case: str) -> None:
        """Say that a case is loaded now."""
        self.case = case
        self.words.say(self.thread_id, case=case)

    def generate_train_batch(self) -> dict[str, Any]:
        """As the host's."""
        try:
            batch: dict[str, Any] = super().generate_train_batch()
        except Exception as fault:
            told, kind = f"{type(fault).__name__}: {fault}"[:CHARACTERS_OF_A_FAULT], self._kind_of(fault)
            self.words.say(self.thread_id, case=self.case, fault=told, kind=kind, time=time.time())
            if kind == "data":
                what, how = f"{self.case} cannot be loaded: {told}", ways_to_mend(self.case, kind)
                raise DataError(what, where=self.folder, how=how, code="bad-case") from fault
            raise
        self.words.say(self.thread_id)  # it has no case while it waits for room
        return batch

    def _kind_of(self, fault: Exception) -> str:
        """Whose fault it is: one in the case itself comes again when it is read as a whole."""
        if isinstance(fault, MemoryError) or getattr(fault, "errno", None) in (errno.ENOMEM, errno.EMFILE):
            return "memory"
        try:
            for part in self._data.load_case(self.case)[:3]:
                if part is not None:
                    part[:]
        except Exception:
            return "data"
        return "code"


class _NotedCases:
    """A data set as a loader sees it."""

    def __init__(self, data: Any, loader: ToldLoader) -> None:
        self._data, self._loader = data, loader

    def load_case(self, identifier: str) -> Any:
        self._loader.begin(identifier)
        return self._data.load_case(identifier)


class ToldWorkers(NonDetMultiThreadedAugmenter):
    """batchgenerators' workers; the end of one is an error with its number, its case, how it ended, and memory."""

    def __init__(self, *settings: Any, **options: Any) -> None:
        super().__init__(*settings, **options)
        self._memory = MemoryWatch()
        self._exit_codes: list[int | None] = []

    def __next__(self) -> dict[str, Any]:
        self._memory.look()
        try:
            batch: dict[str, Any] = super().__next__()
        except RuntimeError as fault:
            if (told := self._told()) is None:
                raise
            raise told from fault
        return batch

    def _finish(self, timeout: float = 10, force: bool = False) -> None:
        """End all workers; at once where one is dead, since it may have what the others wait for."""
        if self._processes:
            self._exit_codes = self._ends(self._processes)
            if any(self._exit_codes):
                for process in self._processes:
                    process.kill()
        super()._finish(timeout, force)

    def _ends(self, processes: list[Process]) -> list[int | None]:
        """The exit codes, once a worker that is about to die is dead."""
        is_wrong = self.abort_event is not None and self.abort_event.is_set()
        deadline = time.monotonic() + (SECONDS_TO_DIE if is_wrong and not self._first_fault() else 0)
        while not any(codes := [process.exitcode for process in processes]) and time.monotonic() < deadline:
            time.sleep(0.01)
        return codes

    def _first_fault(self) -> tuple[int, dict[str, Any]] | None:
        found: tuple[int, dict[str, Any]] | None = self.generator.words.first_fault()
        return found

    def _told(self) -> UmambaError | None:
        folder, fewer = self.generator.folder, f"{FEWER}={max(1, self.num_processes // 2)}"
        if found := self._first_fault():
            number, word = found
            worker, how = self._worker(number, word), ways_to_mend(word["case"], word["kind"], fewer)
            return failed(worker, word["fault"], self._memory.fullest(), where=folder, kind=word["kind"], how=how)
        for number, code in enumerate(self._exit_codes):
            if code:
                worker = self._worker(number, self.generator.words.of(number))
                stays = "what was saved stays"
                return ended(worker, code, self._memory.fullest(), where=folder, fewer=fewer, stays=stays)
        return None

    def _worker(self, number: int, word: dict[str, Any]) -> Worker:
        return Worker(number + 1, self.num_processes, "loading worker", "loading", word.get("case", ""))


def ways_to_mend(case: str, kind: str, fewer: str = f"{FEWER}=1") -> list[str]:
    """What to do about a fault of this kind."""
    if kind == "data":
        return [f"remove the files of {case} there, then  umamba preprocess  makes them anew"]
    if kind == "memory":
        return [f"set {fewer} and run the same command: it takes less memory"]
    return ["-v shows the whole of it"]

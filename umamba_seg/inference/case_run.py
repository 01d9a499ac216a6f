"""The cases of one call of `predict`, each read, segmented and stored; a fault of one is noted and no more."""

import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.errors import DataError, UmambaError
from umamba_seg.inference.cases import PICTURES, Case
from umamba_seg.inference.ledger import Entry
from umamba_seg.inference.model import Model, write_beside
from umamba_seg.inference.pipeline import Pipeline
from umamba_seg.inference.preview import picture
from umamba_seg.inference.statistics import class_names_of, statistics, write_table
from umamba_seg.inference.unlike import remarks
from umamba_seg.progress import OnProgress, Progress
from umamba_seg.run_record import sha256

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Extras:
    """What is written beside label maps.

    Args:
        probabilities: Those of all classes, as nnU-Net's `.npz` and `.pkl`.
        preview: A picture of each case below `previews`.
    """

    probabilities: bool = False
    preview: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A case that was read, or why it was not."""

    case: Case
    seconds: float = 0.0
    image: Any = None
    properties: Any = None
    prepared: Any = None
    remarks: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A case that was segmented, or why it was not."""

    ready: Ready
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    reason: str | None = None


class CaseRun:
    """The cases of one call, through the three stages.

    Args:
        model: What segments them.
        extras: What is written beside label maps.
        scratch: For what lies on disk for a while.
        check: Whether to say where a case is unlike the training data.
        report: Told how far it is.
        tell: Told in a sentence what is noteworthy.
    """

    def __init__(
        self, model: Model, extras: Extras, scratch: Path, *, check: bool, report: OnProgress, tell: Tell
    ) -> None:
        self.model, self.extras, self.scratch = model, extras, scratch
        self.check, self.report, self.tell = check, report, tell
        self.names = class_names_of(model.folder.dataset_json)
        self.done: dict[str, Path] = {}
        self.failed: dict[str, str] = {}
        self.remarks: dict[str, tuple[str, ...]] = {}
        self.finished = self.total = 0
        self.stop = threading.Event()
        self.note: Callable[[Entry], None] = lambda entry: None

    def all(self, cases: Sequence[Case], note: Callable[[Entry], None]) -> bool:
        """Segment them, and note what became of each; whether it was asked to stop before all were."""
        self.note = note
        self.total = len(cases)
        stages: Pipeline[Case, Ready, Made, Entry] = Pipeline(self.read, self.segment, self.store)
        self.report(Progress("predict", 0, self.total, "cases"))
        with _stop_on_signals(self.stop):
            try:
                for entry in stages.run(cases):
                    self._count(entry)
            except _Stopped:
                for entry in stages.stored():
                    self._count(entry)
                return True
        return False

    def _count(self, entry: Entry) -> None:
        self.finished += 1
        if entry.state == "failed":
            self.failed[entry.case] = entry.reason
        else:
            self.done[entry.case] = Path(entry.file)
        self.report(Progress("predict", self.finished, self.total, "cases", {"case": entry.case}))

    def read(self, case: Case) -> Ready:
        """First stage: from files to the grid; only the files where a stage before must see them first."""
        began = time.monotonic()
        try:
            image, properties = self.model.read(case)
            remarks = self._remarks(case, image, properties)
            ready = Ready(case, 0.0, image, properties, None, remarks)
            if self.model.previous is None and not self._needs_image():
                prepared = self.model.engine.prepare(image, properties)
                ready = replace(ready, image=None, prepared=prepared)
            return replace(ready, seconds=time.monotonic() - began)
        except _FAULTS as fault:
            return Ready(case, time.monotonic() - began, reason=_reason(fault))

    def segment(self, ready: Ready) -> Made:
        """Second stage: labels; again with less memory where that ran out."""
        if ready.reason is not None:
            return Made(ready)
        while True:
            try:
                return self._labels(ready)
            except _FAULTS as fault:
                reason, is_memory = _reason(fault), _is_memory(fault)
            otherwise = self.model.engine.make_do() if is_memory else None
            if otherwise is None:
                return Made(ready, reason=reason)
            self.tell(f"{ready.case.name}: not enough memory; once more {otherwise}")
            ready = self.read(ready.case)  # what was prepared may have been used up

    def store(self, made: Made) -> Entry:
        """Third stage: the files of a case, beside and renamed."""
        case, reason = made.ready.case, made.ready.reason or made.reason
        seconds, remarks = round(made.ready.seconds, 2), "; ".join(made.ready.remarks)
        entry = Entry(case.name, "done", case.target.name, seconds, remarks=remarks)
        if reason is None:
            try:
                self._write(made, entry)
                return entry
            except RuntimeError as fault:  # of the image library; what the system says is an OSError and ends the run
                reason = f"not written: {_reason(fault)}"
        failed = replace(entry, state="failed", file="", reason=reason)
        self.note(failed)
        return failed

    def _write(self, made: Made, entry: Entry) -> None:
        case, properties = made.ready.case, made.ready.properties
        if made.probabilities is not None:
            _write_probabilities(case, made, self.model.folder.ending)
        write_beside(
            case.target,
            lambda part: self.model.reader.write_seg(made.labels, str(part), properties),
            lambda part: self.note(replace(entry, labels=sha256(part))),
        )
        if self.extras.preview:
            self._preview(case)

    def _labels(self, ready: Ready) -> Made:
        began, case = time.monotonic(), ready.case
        if ready.reason is not None:
            return Made(ready)
        place = None
        if self.extras.probabilities:
            place = self._place_for_probabilities(ready)
        model = self.model

        def on_tile(done: int, total: int) -> None:
            if self.stop.is_set():
                raise _Stopped
            facts = {"case": case.name, "tiles": f"{done}/{total}"}
            self.report(Progress("predict", self.finished, self.total, "cases", facts))

        if ready.prepared is not None:
            labels = model.engine.labels(ready.prepared, on_tile, probabilities=place)
        else:
            labels = model.segment(ready.image, ready.properties, name=case.name, on_tile=on_tile, probabilities=place)
        seconds = ready.seconds + time.monotonic() - began
        return Made(replace(ready, image=None, prepared=None, seconds=seconds), labels, place)

    def _needs_image(self) -> bool:
        return self.extras.probabilities  # whose size must be known beforehand

    def _place_for_probabilities(self, ready: Ready) -> np.ndarray:
        shape = (self.model.engine.classes, *ready.image.shape[1:])
        file = self.scratch / f"{ready.case.name}.probabilities"
        array = np.memmap(file, np.float32, "w+", shape=shape)
        file.unlink()
        return array

    def _remarks(self, case: Case, image: np.ndarray, properties: Mapping[str, Any]) -> tuple[str, ...]:
        if not self.check:
            return ()
        found = tuple(remarks(image, properties["spacing"], self.model.folder))
        if found:
            self.remarks[case.name] = found
            for one in found:
                self.tell(f"{case.name}: {one}")
        return found

    def _preview(self, case: Case) -> None:
        folder = case.target.parent / "previews"
        folder.mkdir(exist_ok=True)
        try:
            picture(case.target, case.files[0], folder / f"{case.name}.png", names=self.names)
        except DataError as fault:
            self.tell(f"{case.name}: no preview: {fault.what}")

    def write_statistics(self, cases: Sequence[Case]) -> None:
        """The table of all label maps that are there."""
        rows = [
            row
            for case in cases
            if case.target.is_file()
            for row in statistics(case.target, image=_grey(case), names=self.names)
        ]
        write_table(rows, cases[0].target.parent / "statistics.csv")


def _grey(case: Case) -> Path | None:
    """The image whose intensities are told; of pictures, which may have colours, none."""
    return None if case.files[0].name.endswith(PICTURES) else case.files[0]


class _Stopped(Exception):  # noqa: N818  (no error: somebody asked)
    """Leaves the case in hand."""


_FAULTS = (RuntimeError, ValueError, AssertionError, IndexError, MemoryError, DataError, TypeError, KeyError)


def _reason(fault: BaseException) -> str:
    if isinstance(fault, UmambaError):
        return fault.what
    text = str(fault).strip()
    return text.splitlines()[-1] if text else type(fault).__name__


def _is_memory(fault: BaseException) -> bool:
    return isinstance(fault, MemoryError) or "out of memory" in str(fault).lower() or "allocate memory" in str(fault)


def _write_probabilities(case: Case, made: Made, ending: str) -> None:
    """nnU-Net's `.npz` and `.pkl`."""
    stem = case.target.name.removesuffix(ending)
    probabilities, properties = made.probabilities, made.ready.properties
    assert probabilities is not None

    def write(part: Path) -> None:
        np.savez_compressed(part, probabilities=probabilities)

    write_beside(case.target.with_name(f"{stem}.npz"), write)
    write_beside(case.target.with_name(f"{stem}.pkl"), lambda part: part.write_bytes(pickle.dumps(properties)) and None)


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask to stop before the next tile; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What to say of a worker process that ended before its work did: which one, on what, how, and how full memory was."""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from umamba_seg.errors import DataError, MachineError, ResourceError, UmambaError

_CGROUP = Path("/sys/fs/cgroup")
# what the system sends for want of memory, or of shared memory; names, since Windows knows neither
_FOR_WANT_OF_MEMORY = ("SIGKILL", "SIGBUS")
_WORDS_OF_THE_HOST = ("6 feet under", "no longer alive")
SECONDS_BETWEEN_LOOKS, SECONDS_FOR_THE_HOST = 0.2, 2.0
_OF_A_CRASH = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use of those there are, in the container this runs in where it has a limit."""

    used: float
    total: float

    def __str__(self) -> str:
        return f"{self.used / 2**30:.1f} of {self.total / 2**30:.1f} GB in use"


def memory_in_use() -> Memory:
    """How full memory is: of the container or of the machine, whichever has less left."""
    machine = psutil.virtual_memory()
    found = [Memory(machine.total - machine.available, machine.total)]
    with suppress(OSError, ValueError):  # no container, or no limit
        limit, used = (float((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(Memory(used, limit))
    return min(found, key=lambda memory: memory.total - memory.used)


class MemoryWatch:
    """The fullest that memory was lately: once a worker is dead, what it had taken is free again."""

    def __init__(self) -> None:
        self._before = self._last = memory_in_use()

    def look(self) -> None:
        """Take note, now."""
        self._before, self._last = self._last, memory_in_use()

    def fullest(self) -> Memory:
        """Of the last two looks and now."""
        return max(self._before, self._last, memory_in_use(), key=lambda memory: memory.used)


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes, and what it was at.

    Args:
        number: From 1.
        count: How many there are; 0 where nobody knows which it is.
        kind: What they are for, as in `loading worker`.
        doing: As in `preprocessing`.
        case: The case it had; empty where nobody knows.
    """

    number: int
    count: int
    kind: str
    doing: str
    case: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of {self.count}" if self.count else self.kind

    @property
    def at_work(self) -> str:
        """What it was doing, as the end of a sentence."""
        return f" while {self.doing} {self.case}" if self.case else f" while {self.doing}" if not self.count else ""


def ended(worker: Worker, exit_code: int | None, memory: Memory, *, where: str, fewer: str, stays: str) -> UmambaError:
    """The error for a worker that was killed, crashed or left.

    Args:
        worker: Which.
        exit_code: Of the process as `multiprocessing` tells it: the negative number of a signal; None for unknown.
        memory: How full it was.
        where: The folder at fault.
        fewer: The option with which fewer workers run.
        stays: What is not lost, as a sentence.
    """
    what = f"{worker} was {_end(exit_code)}{worker.at_work}; {memory}; {stays}"
    name = _signal_name(exit_code)
    if name in _FOR_WANT_OF_MEMORY or exit_code is None:
        how = [f"run the same command with {fewer}: it takes less memory", "in a container, give it more memory"]
        if name == "SIGBUS":
            how.insert(0, "in a container, give it more shared memory: docker run --shm-size 8g")
        return ResourceError(what, where=where, how=how, code="worker-killed")
    if worker.case and (name is None or name in _OF_A_CRASH):
        how = [f"look at {worker.case}: umamba check reads it", f"{fewer} tells whether it dies alone"]
        return DataError(what, where=where, how=how, code="worker-crashed")
    return MachineError(what, where=where, how=["run the same command again"], code="worker-ended")


def _end(exit_code: int | None) -> str:
    name = _signal_name(exit_code)
    if exit_code is None:
        return "gone before it could be looked at, most often for want of memory,"
    if name is None:
        return f"gone with exit code {exit_code}"
    number = -exit_code
    return f"killed by the system (signal {number})" if name == "SIGKILL" else f"ended by signal {number} ({name})"


def _signal_name(exit_code: int | None) -> str | None:
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def failed(
    worker: Worker, fault: str, memory: Memory, *, where: str, kind: str, how: Sequence[str] = ()
) -> UmambaError:
    """The error for a worker that ended with an exception.

    Args:
        worker: Which.
        fault: The exception, type and words.
        memory: How full it was.
        where: The folder at fault.
        kind: Whose fault it is: `data`, `memory` or, with anything else, that of the code.
        how: Ways to mend it.
    """
    what = f"{worker} failed{worker.at_work}: {fault}"
    if kind == "memory":
        return ResourceError(f"{what}; {memory}", where=where, how=how, code="worker-memory")
    if kind == "data":
        return DataError(what, where=where, how=how, code="bad-case")
    return UmambaError(what, where=where, how=how, code="worker-failed")


@contextmanager
def told_of_deaths(doing: str, *, where: str, fewer: str, stays: str) -> Iterator[None]:
    """Turn the death of a child process inside the block into an error.

    Pools of the standard library put a new worker in the place of a dead one and wait for ever for what that one had.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield  # only a main thread can be called away, and only by a signal
        return
    watch = _Watch()
    try:
        with watch:
            yield
    except (_CalledAway, RuntimeError) as fault:
        if isinstance(fault.__context__, KeyboardInterrupt):  # which has ended the workers too
            raise KeyboardInterrupt from fault
        if watch.exit_code is None and not any(words in str(fault) for words in _WORDS_OF_THE_HOST):
            raise
        worker = Worker(0, 0, "a worker", doing)
        raise ended(worker, watch.exit_code, watch.fullest, where=where, fewer=fewer, stays=stays) from fault


class _CalledAway(BaseException):
    """Raised in the main thread to end its waiting; no exception, since the host must not catch it."""


class _Watch:
    """Looks at the children of this process, and calls the main thread away some time after one has died.

    It notes children as they start: between two looks one may come and go.

    Attributes:
        exit_code: Of the first that died; None as long as none has.
        fullest: How full memory was.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.fullest = memory_in_use()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._children: list[BaseProcess] = []

    def __enter__(self) -> None:
        self._children = multiprocessing.active_children()
        self._start_before = BaseProcess.start
        BaseProcess.start = lambda child: self._note(child)  # type: ignore[assignment, method-assign]
        # SIGINT would not do: what nohup starts in the background does not hear it
        self._handler_before = signal.signal(signal.SIGUSR1, self._leave) or signal.SIG_DFL
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            self._is_over.set()
            self._thread.join()
        finally:
            BaseProcess.start = self._start_before  # type: ignore[method-assign]
            signal.signal(signal.SIGUSR1, self._handler_before)

    def _note(self, child: BaseProcess) -> None:
        self._start_before(child)
        self._children.append(child)

    def _leave(self, *_: object) -> None:
        if self.exit_code is not None:
            raise _CalledAway

    def _look(self) -> None:
        memory, is_over = MemoryWatch(), False
        while not is_over and self.exit_code is None:
            is_over = self._is_over.wait(SECONDS_BETWEEN_LOOKS)
            memory.look()
            self.fullest = memory.fullest()
            codes = [child.exitcode for child in self._children]
            # a pool ends its workers by SIGTERM
            self.exit_code = next((code for code in codes if code not in (None, 0, -signal.SIGTERM)), None)
        while not self._is_over.wait(SECONDS_FOR_THE_HOST):  # which notices some deaths by itself
            if ident := threading.main_thread().ident:  # again and again: the dead may have a lock that a pool needs
                signal.pthread_kill(ident, signal.SIGUSR1)  # which ends waiting for a lock

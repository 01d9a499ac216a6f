"""What to say of a worker process that ended before its work did: which one, on what, how, and how full memory was."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from umamba_seg.errors import DataError, MachineError, ResourceError, UmambaError

_CGROUP = Path("/sys/fs/cgroup")
# what the system sends for want of memory, or of shared memory; names, since Windows knows neither
_FOR_WANT_OF_MEMORY = ("SIGKILL", "SIGBUS")
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
        count: How many there are.
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
        return f"{self.kind} {self.number} of {self.count}"

    @property
    def at_work(self) -> str:
        """What it was doing, as the end of a sentence."""
        return f" while {self.doing} {self.case}" if self.case else ""


def ended(worker: Worker, exit_code: int | None, memory: Memory, *, where: str, fewer: str, stays: str) -> UmambaError:
    """The error for a worker that was killed, crashed or left.

    Args:
        worker: Which.
        exit_code: Of the process as `multiprocessing` tells it: the negative number of a signal.
        memory: How full it was.
        where: The folder at fault.
        fewer: The option with which fewer workers run.
        stays: What is not lost, as a sentence.
    """
    what = f"{worker} was {_end(exit_code)}{worker.at_work}; {memory}; {stays}"
    name = _signal_name(exit_code)
    if name in _FOR_WANT_OF_MEMORY:
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
    if name is None:
        return f"gone with exit code {exit_code}"
    number = -(exit_code or 0)
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

"""Cases in processes of their own, of which each is told what to do next: so a death is known with its case.

Pools of the standard library hand out work through a queue that all workers share. When one dies nobody knows what it
had, and the others are ended without a word.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from umamba_seg.errors import UmambaError
from umamba_seg.workers import MemoryWatch, Worker, ended

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 5.0
Work = Callable[..., None]


class _Process:
    """A worker process and the pipe to it."""

    def __init__(self, number: int, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.number, self.case = number, ""
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is the end of the pipe

    def give(self, case: str, arguments: tuple[Any, ...]) -> None:
        self.case = case
        self.pipe.send(arguments)


def in_workers(
    work: Work, cases: Mapping[str, tuple[Any, ...]], processes: int, *, doing: str, folder: Path
) -> Iterator[tuple[str, Exception | None]]:
    """Call `work(*arguments)` for every case; yields each with its fault, or None, in the order in which they end.

    Args:
        work: What can be imported, as other processes do.
        cases: Arguments by case.
        processes: How many work at once.
        doing: What it is, as in `preprocessing`.
        folder: Where it goes.

    Raises:
        UmambaError: A worker died. The others are ended.
    """
    left = list(cases.items())[::-1]
    count = min(processes, len(left))
    workers = [_Process(number + 1, work) for number in range(count)]
    busy: dict[Any, _Process] = {}
    memory = MemoryWatch()
    try:
        for worker in workers:
            _give_next(worker, left, busy)
        while busy:
            ready = wait(list(busy), timeout=SECONDS_BETWEEN_LOOKS)
            memory.look()
            dead = []
            for worker in [busy.pop(pipe) for pipe in ready]:
                try:
                    fault: Exception | None = worker.pipe.recv()
                except (EOFError, OSError):
                    dead.append(worker)
                    continue
                case = worker.case
                _give_next(worker, left, busy)
                yield case, fault
            if dead:
                raise _died(dead[0], count, memory, doing, folder)
    finally:
        _end(workers)


def _give_next(worker: _Process, left: list[tuple[str, tuple[Any, ...]]], busy: dict[Any, _Process]) -> None:
    if not left:
        worker.pipe.close()  # it has nothing more to wait for
        return
    busy[worker.pipe] = worker
    try:
        worker.give(*left.pop())
    except OSError:  # dead already, which the next look at its pipe tells
        return


def _died(worker: _Process, count: int, memory: MemoryWatch, doing: str, folder: Path) -> UmambaError:
    fullest = memory.fullest()
    worker.process.join(SECONDS_TO_END)
    return ended(
        Worker(worker.number, count, "worker", doing, worker.case),
        worker.process.exitcode,
        fullest,
        where=str(folder),
        fewer=f"-j {max(1, count // 2)}",
        stays="what is done stays",
    )


def _end(workers: list[_Process]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()


def _serve(pipe: Connection, work: Work) -> None:
    """Work until there is no more; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the first of them decides
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        try:
            work(*arguments)
        except UmambaError as fault:
            pipe.send(fault)
        except Exception as fault:  # by its words, since not every exception survives the way to another process
            pipe.send(RuntimeError(str(fault) or type(fault).__name__))
        else:
            pipe.send(None)

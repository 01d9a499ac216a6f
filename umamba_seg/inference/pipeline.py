"""Work that passes through three stages at once: the next item is made ready and the last one stored meanwhile.

Threads, not processes: reading, arithmetic and compressing all let other threads run.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Made = TypeVar("Made")
Stored = TypeVar("Stored")


class Pipeline(Generic[Item, Ready, Made, Stored]):
    """Three stages, of which the middle one runs on the caller's thread.

    Args:
        prepare: Makes an item ready. What it raises ends the run: tell faults of items by what is returned.
        work: Makes a result of it.
        store: Keeps the result.
        ahead: How many ready items may wait.
    """

    def __init__(
        self,
        prepare: Callable[[Item], Ready],
        work: Callable[[Ready], Made],
        store: Callable[[Made], Stored],
        *,
        ahead: int = 1,
    ) -> None:
        self.prepare, self.work, self.store = prepare, work, store
        self._ready: queue.Queue[tuple[Ready | None, BaseException | None]] = queue.Queue(max(ahead, 1))
        self._stop = threading.Event()
        self._waiting: list[Future[Stored]] = []

    def run(self, items: Sequence[Item]) -> Iterator[Stored]:
        """What was stored, in the order of the items. Where a stage raises, what is made is still stored."""
        feeder = threading.Thread(target=self._feed, args=(items,), daemon=True)
        feeder.start()
        waiting = self._waiting
        with ThreadPoolExecutor(1) as storing:
            try:
                for _ in items:
                    ready, fault = self._ready.get()
                    if fault is not None:
                        raise fault
                    made = self.work(ready)  # type: ignore[arg-type]
                    del ready
                    waiting.append(storing.submit(self.store, made))
                    del made
                    while waiting and (waiting[0].done() or len(waiting) > 1):
                        yield waiting.pop(0).result()
                for future in waiting:
                    yield future.result()
            finally:
                self._stop.set()
                while feeder.is_alive():
                    try:
                        self._ready.get_nowait()
                    except queue.Empty:
                        feeder.join(0.05)

    def stored(self) -> list[Stored]:
        """What was still stored after `run` raised."""
        return [future.result() for future in self._waiting]

    def _feed(self, items: Sequence[Item]) -> None:
        for item in items:
            if self._stop.is_set():
                return
            try:
                self._ready.put((self.prepare(item), None))
            except BaseException as fault:  # raised on the caller's thread
                self._ready.put((None, fault))
                return

"""Ctrl-C and SIGTERM as a wish to stop soon, instead of an exception anywhere."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether somebody asked to stop. A second Ctrl-C ends the program at once."""

    def __init__(self) -> None:
        self.is_set = False

    def request(self, number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """Ask to stop; has the shape of a signal handler."""
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """A StopSignal that Ctrl-C and SIGTERM set while the block runs; forked workers inherit it and outlive Ctrl-C."""
    stop = StopSignal()
    try:
        previous = {number: signal.signal(number, stop.request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers; elsewhere the caller's own handling stays
        previous = {}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

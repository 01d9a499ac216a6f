"""What our programs ask of Python and of the C library that runs them. It changes what they cost, and nothing else."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG, _MIDDLE, _OLD = 20_000, 20, 20  # Python's own are 700, 10, 10

_COUNTS_ITS_OBJECTS = ("triton._C.libtriton", "triton._C.libproton")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_KEPT = 1 << 27  # bytes; larger are whole images, which are not made again and again
_MOST_KEPT = 1 << 29


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look for unreachable objects rarely, and at the end of the program not at all.

    Importing torch and numba makes a million objects that stay; looking through them again and again took a quarter of
    the CPU seconds of a small prediction, most of that at its end. There Python's last collection, which cannot be
    disabled, is left nothing to look at, unless Triton is there: it reports what is not collected as leaks.
    """
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    try:
        yield
    finally:
        gc.disable()
        if not any(name in sys.modules for name in _COUNTS_ITS_OBJECTS):
            gc.freeze()


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, where it is glibc, instead of handing each block back.

    The layers of a network ask for the same megabytes again and again, and pages that are handed out anew are first
    cleared: that took a sixth of the CPU seconds of a small network.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)

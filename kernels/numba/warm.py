"""Whether the kernels that networks use are compiled, and compiling them ahead of time."""

import time
from dataclasses import dataclass
from pathlib import Path

from umamba_seg.kernels.numba import compiler
from umamba_seg.kernels.numba.frame import LANES
from umamba_seg.kernels.numba.library import kernel, kernel_name
from umamba_seg.kernels.numba.work import chunk_of

USUAL_STATES = 16
FOLDER_VARIABLE = compiler.FOLDER_VARIABLE


@dataclass(frozen=True, slots=True)
class Warmth:
    """What the first scan of a process will cost.

    Args:
        folder: Where compiled kernels are kept.
        is_warm: Whether both usual ones are.
        compile_seconds: What compiling took, of a processor, when they are.
        load_seconds: What loading them took just now.
    """

    folder: Path
    is_warm: bool
    compile_seconds: float = 0.0
    load_seconds: float = 0.0


def warmth() -> Warmth:
    """Look, and load what is there."""
    kept = [compiler.kept(kernel_name(*usual)) for usual in _usual()]
    seconds = [code.seconds for code in kept if code is not None]
    if len(seconds) < len(kept):
        return Warmth(compiler.folder(), False)
    began = time.perf_counter()
    warm()
    return Warmth(compiler.folder(), True, sum(seconds), time.perf_counter() - began)


def warm() -> None:
    """Compile the usual kernels, or load them where that has been done."""
    for usual in _usual():
        kernel(*usual)


def _usual() -> tuple[tuple[str, int, bool], ...]:
    return (
        ("forward", chunk_of(USUAL_STATES, LANES), False),
        ("backward", chunk_of(USUAL_STATES, LANES // 2), False),
    )

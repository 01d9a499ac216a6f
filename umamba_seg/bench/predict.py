"""What label maps cost here: nnU-Net's own command beside `umamba predict`, on made-up images and a made-up model.

The two take turns, each in a process of its own, with the same cores, threads and weights and without mirroring. CPU
seconds are user and system of a process and of all that it started and waited for; the least of the turns counts, since
other programs disturb them only upwards. nnU-Net's threads are told not to spin while they wait for each other, as ours
tell themselves: beside other busy programs spinning doubles CPU seconds (40 and 19 for the same thirty images). Memory
is that of all processes together, each shared page counted once (PSS), and sampled; wall seconds depend on what else
the machine does.

What is not the network is measured in one further run of ours, in which a clock of its threads counts its forward
passes: the mean of those after the first, times the tiles, is taken off the CPU seconds of both programs.
"""

import json
import os
import runpy
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.errors import MachineError, unknown

GB = 2**30
MOST_THREADS = 8  # nnU-Net takes no more
QUICK, SLOW, WHEN_SLOW = 0.05, 0.25, 10.0  # seconds between samples, in the first ten seconds and then
SHARE, DICE = "share of equal voxels", "Dice of the worst class"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """Images, a model for them, and what should come out.

    Args:
        images: How many.
        shape: Of each, along z, y, x.
        spacing: Of the images in mm.
        grid_spacing: Of the network's grid.
        classes: With the background.
        features: Channels of each stage of the network.
        is_whole: Whether voxels are whole numbers, as in CT, and not floating point.
        cpu: Bound of nnU-Net's CPU seconds over ours.
        rest: The same without the network.
        memory: Bound of our peak memory.
    """

    images: int = 1
    shape: tuple[int, int, int] = (64, 64, 64)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grid_spacing: tuple[float, float, float] = (1.25, 1.25, 1.25)
    classes: int = 3
    features: tuple[int, ...] = (16, 32, 64, 128)
    is_whole: bool = False
    tile: tuple[int, int, int] = (64, 64, 64)
    cpu: str = ""
    rest: str = ""
    memory: str = ""


_LARGE: dict[str, Any] = {
    "shape": (300, 512, 512), "spacing": (1.0, 0.8, 0.8), "grid_spacing": (1.5, 1.5, 1.5),
    "features": (8, 16, 32, 64), "is_whole": True,
}  # fmt: skip
CASES = {
    "small": Case(cpu="at least 6", memory="at most 0.7"),
    "thirty": Case(images=30, cpu="at least 3.2", memory="at most 0.8"),
    "medium": Case(shape=(128, 160, 128), classes=15, cpu="at least 2.4", memory="at most 0.9"),
    "large": Case(**_LARGE, classes=15, cpu="at least 1.9", rest="at least 7, ours about 18 s", memory="at most 1.5"),
    "classes60": Case(**_LARGE, classes=60, memory="at most 1.9, of which 0.4 are for 45 more classes"),
}
BY_DEFAULT = ("small", "thirty", "medium")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        case: Its name.
        what: What was measured.
        theirs: nnU-Net's; None where it did not run, or where the two are compared in one number.
        ours: Ours, or that number.
        ratio: Theirs over ours.
        bound: What the ratio, the memory or the number should be, as a sentence; "" for none.
    """

    case: str
    what: str
    theirs: float | None
    ours: float
    ratio: float | None
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a program: CPU and wall seconds, and bytes held at the most."""

    cpu: float
    wall: float
    memory: int

    @staticmethod
    def best(turns: Sequence["Cost"]) -> "Cost":
        """The least seconds, and the most memory, since samples miss peaks and invent none."""
        return Cost(min(t.cpu for t in turns), min(t.wall for t in turns), max(t.memory for t in turns))


def measure(
    names: Sequence[str] = (),
    *,
    turns: int = 3,
    only_ours: bool = False,
    folder: Path | None = None,
    tell: Tell = lambda sentence: None,
) -> Iterator[Row]:
    """The rows of each case.

    Args:
        names: Of `CASES`; empty means those that take a minute or two.
        turns: How often each program runs.
        only_ours: Leave nnU-Net's command out.
        folder: Where images, models and label maps stay; what is there from an earlier call is used again.
        tell: Told in a sentence what was measured so far.
    """
    for name in names:
        if name not in CASES:
            raise unknown("case", name, CASES, where="CASE")
    for name in names or BY_DEFAULT:
        with ExitStack() as stack:
            place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="umamba-bench-")))
            yield from _rows(name, _Work.make(name, place / name), turns, tell, only_ours=only_ours)


def _rows(name: str, work: "_Work", turns: int, tell: Tell, *, only_ours: bool) -> Iterator[Row]:
    theirs, ours = [], []
    for turn in range(1, turns + 1):
        if not only_ours:
            theirs.append(work.run_theirs())
            tell(f"{name}, turn {turn} of {turns}: nnU-Net {theirs[-1].cpu:.1f} CPU seconds")
        ours.append(work.run_ours())
        tell(f"{name}, turn {turn} of {turns}: ours {ours[-1].cpu:.1f} CPU seconds")
    case, mine, stock = CASES[name], Cost.best(ours), Cost.best(theirs) if theirs else None
    rest, network = work.measure_network()
    yield _row(name, "CPU seconds", stock.cpu if stock else None, mine.cpu, case.cpu)
    yield _row(name, "CPU seconds without the network", stock.cpu - network if stock else None, rest, case.rest)
    yield _row(name, "CPU seconds of the network", None, network)
    yield _row(name, "wall seconds", stock.wall if stock else None, mine.wall)
    yield _row(name, "peak memory in GB", stock.memory / GB if stock else None, mine.memory / GB, case.memory)
    if stock:
        share, dice = agreement(work.theirs, work.ours, case.classes)
        yield Row(name, SHARE, None, share, None, "at least 0.9999")
        yield Row(name, DICE, None, dice, None, "at least 0.9995")


def _row(case: str, what: str, theirs: float | None, ours: float, bound: str = "") -> Row:
    return Row(case, what, theirs, ours, None if theirs is None else theirs / ours, bound)


@dataclass(frozen=True, slots=True)
class _Work:
    """The folders of a case, and the programs on them."""

    case: Case
    folder: Path
    model: Path

    @classmethod
    def make(cls, name: str, folder: Path) -> "_Work":
        """Images and a model; those that are there stay."""
        from umamba_seg.bench.made_up_model import MadeUp

        case = CASES[name]
        made_up = MadeUp(classes=case.classes, tile=case.tile, spacing=case.grid_spacing, features=case.features)
        work = cls(case, folder, made_up.write(folder, fit=True))
        work.images.mkdir(exist_ok=True)
        for seed in range(case.images):
            file = work.images / f"case_{seed:02}_0000.nii.gz"
            if not file.exists():
                _write_image(file, case, seed)
        return work

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def theirs(self) -> Path:
        return self.folder / "nnunet"

    @property
    def ours(self) -> Path:
        return self.folder / "umamba"

    def run_theirs(self) -> Cost:
        """As a user would run it; no thread spins, and torch does not load our plugin into it."""
        options = ["-i", self.images, "-o", self.theirs, "-m", self.model, "-f", 0, "--disable_tta", "-device", "cpu"]
        variables = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "OMP_WAIT_POLICY": "passive"}
        return run([_script("nnUNetv2_predict_from_modelfolder"), *options], variables)

    def run_ours(self) -> Cost:
        """As a user would run it."""
        return run([_script("umamba"), *self._our_arguments()], self._same_threads())

    def measure_network(self) -> tuple[float, float]:
        """CPU seconds of one more run of ours: without its forward passes, and of those."""
        notes = self.folder / "passes.json"
        cost = run([sys.executable, "-m", __name__, notes, *self._our_arguments()], self._same_threads())
        passes = json.loads(notes.read_bytes())
        network = float(np.mean(passes[1:] or passes)) * self.tiles
        return cost.cpu - network, network

    @property
    def tiles(self) -> int:
        """Forward passes that the images need."""
        from umamba_seg.inference.tiles import Window

        sizes = zip(self.case.shape, self.case.spacing, self.case.grid_spacing, strict=True)
        z, y, x = (round(size * old / new) for size, old, new in sizes)
        deep, high, wide = self.case.tile
        grid = (max(z, deep), max(y, high), max(x, wide))
        return self.case.images * Window(grid, self.case.tile, 0.5).count()

    def _our_arguments(self) -> list[object]:
        options = ["-f", 0, "--no-tta", "--device", "cpu", "--overwrite", "--progress", "none"]
        return ["predict", self.model, "-i", self.images, "-o", self.ours, *options]

    def _same_threads(self) -> dict[str, str]:
        return {"UMAMBA_NUM_THREADS": str(min(os.cpu_count() or 1, MOST_THREADS))}


def _write_image(file: Path, case: Case, seed: int) -> None:
    import SimpleITK

    from umamba_seg.bench.made_up_model import blobs

    image = blobs(case.shape, case.classes, seed)[1] * 100 + 300
    written = SimpleITK.GetImageFromArray(image.round().astype(np.int16) if case.is_whole else image)
    written.SetSpacing(case.spacing[::-1])
    SimpleITK.WriteImage(written, str(file))


def _script(name: str) -> Path:
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise MachineError(f"there is no {name} beside this Python", where=str(path.parent), code="bench-failed")
    return path


def run(command: Sequence[object], variables: Mapping[str, str] | None = None) -> Cost:
    """Run a program to its end and say what it cost, with all processes that it started.

    Raises:
        MachineError: It failed.
    """
    words = [str(word) for word in command]
    before, began, memory = _seconds_of_children(), time.monotonic(), 0
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            words, env={**os.environ, **(variables or {})}, stdin=subprocess.DEVNULL, stdout=told, stderr=told
        )
        try:
            while process.poll() is None:
                memory = max(memory, _memory_of_tree(process.pid))
                time.sleep(QUICK if time.monotonic() - began < WHEN_SLOW else SLOW)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        cost = Cost(_seconds_of_children() - before, time.monotonic() - began, memory)
        if process.returncode:
            told.seek(0)
            lines = told.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {process.returncode}"
            raise MachineError(f"{Path(words[0]).name} failed: {reason}", code="bench-failed")
    return cost


def _seconds_of_children() -> float:
    """User and system, of all that were waited for, and of all that those waited for."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory_of_tree(pid: int) -> int:
    import psutil

    total = 0
    try:
        first = psutil.Process(pid)
        members = [first, *first.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in members:
        try:
            held = process.memory_full_info()
        except psutil.Error:  # it has ended meanwhile
            continue
        total += getattr(held, "pss", held.rss)
    return total


def agreement(theirs: Path, ours: Path, classes: int) -> tuple[float, float]:
    """The share of voxels that two folders of label maps have in common, and the Dice of the worst class of a case."""
    equal = voxels = 0
    worst = 1.0
    for file in sorted(theirs.glob("*.nii.gz")):
        both = _counts(file, ours / file.name, classes)
        equal, voxels = equal + int(both.trace()), voxels + int(both.sum())
        sizes = both.sum(0) + both.sum(1)
        worst = min([worst, *(2 * both[c, c] / sizes[c] for c in range(1, classes) if sizes[c])])
    return equal / voxels, float(worst)


def _counts(one: Path, other: Path, classes: int) -> np.ndarray:
    """How many voxels have which label in one and which in the other, (classes, classes)."""
    import SimpleITK

    first, second = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in (one, other))
    total = np.zeros(classes * classes, np.int64)
    for a, b in zip(first, second, strict=True):  # slice by slice: pairs of a whole volume are large
        total += np.bincount((a.astype(np.int64) * classes + b).ravel(), minlength=classes * classes)
    return total.reshape(classes, classes)


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [asdict(row) for row in rows]


def _run_with_a_clock(notes: Path, arguments: Sequence[str]) -> None:
    """`umamba` in this process, and a file with the CPU seconds of each forward pass."""
    from umamba_seg.device import set_import_time_variables

    set_import_time_variables()  # torch is imported in the next line
    from umamba_seg.inference.backends import TorchBackend

    passes: list[float] = []
    forward = TorchBackend.__call__

    def timed(backend: TorchBackend, fold: int, tiles: Any) -> Any:
        clock = NetworkClock()
        made = forward(backend, fold, tiles)
        passes.append(clock.seconds())
        return made

    TorchBackend.__call__ = timed  # type: ignore[method-assign, assignment]
    sys.argv = ["umamba", *arguments]
    try:
        runpy.run_module("umamba_seg.cli.main", run_name="__main__")
    finally:
        notes.write_text(json.dumps(passes), "utf-8")


class NetworkClock:
    """CPU seconds, from its making on, of this thread and of those that Python knows nothing of, which are torch's."""

    def __init__(self) -> None:
        self._python = {thread.native_id for thread in threading.enumerate()}
        self._start = time.thread_time()
        self._others = _seconds_of_threads()

    def seconds(self) -> float:
        """So far. A thread of Python that has ended since, but not yet for the system, stays Python's."""
        own = time.thread_time() - self._start
        python = self._python | {thread.native_id for thread in threading.enumerate()}
        others = {thread: seconds for thread, seconds in _seconds_of_threads().items() if thread not in python}
        return own + sum(seconds - self._others.get(thread, 0.0) for thread, seconds in others.items())


def _seconds_of_threads() -> dict[int, float]:
    """CPU seconds of each thread of this process, by its number."""
    seconds = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            seconds[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return seconds


if __name__ == "__main__":
    _run_with_a_clock(Path(sys.argv[1]), sys.argv[2:])

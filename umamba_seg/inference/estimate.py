"""What a prediction will take, before it starts: tiles from the headers of the images, time from one tile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from umamba_seg.inference.cases import Case
from umamba_seg.inference.storage import GB

if TYPE_CHECKING:
    from umamba_seg.inference.model import Model

FEW_TILES = 200  # two more to measure with would cost too much


@dataclass(frozen=True, slots=True)
class Estimate:
    """Before the work.

    Args:
        cases: Images.
        tiles: Of all of them; a bound, since what is empty around an image is cut away.
        seconds: That the network will take; None where it is not worth measuring.
        memory: Bytes at the most, beside what the process held before.
    """

    cases: int
    tiles: int
    seconds: float | None
    memory: int

    def sentence(self) -> str:
        """In words."""
        images = "1 image" if self.cases == 1 else f"{self.cases} images"
        took = "" if self.seconds is None else f", about {_spoken(self.seconds)}"
        return f"{images}, at most {self.tiles} tiles{took}, memory about {self.memory / GB:.1f} GB"


def estimate(model: "Model", cases: Sequence[Case]) -> Estimate:
    """Look at the headers, and time a tile where there are many. Images that cannot be read count nothing."""
    tiles, memory = 0, 0
    for case in cases:
        if (found := _size(case)) is None:
            continue
        grid, full = _grid(model, *found)
        tiles += model.engine.window(grid).count()
        raw = 3 * prod(full) * 4 * len(case.files)  # as stored, as float32, and one more while it is normalised
        memory = max(memory, raw, model.engine.bytes_for(grid, full, len(model.channels)))
    runs = tiles * model.engine.backend.folds * (1 + len(model.engine.backend.flips))
    seconds = runs * _seconds_of_a_tile(model) if tiles > FEW_TILES else None
    return Estimate(len(cases), tiles, seconds, memory + sum(p.stat().st_size for p in model.folder.checkpoints))


def _size(case: Case) -> tuple[list[int], list[float]] | None:
    """Size and spacing along z, y, x, as the header has them."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(case.files[0]))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    size, spacing = list(reader.GetSize())[:3], list(reader.GetSpacing())[:3]
    if prod(size) > 2**40 or not all(length > 0 for length in spacing):
        return None
    if len(size) == 2:
        size, spacing = [*size, 1], [*spacing, 999 * max(spacing)]
    return size[::-1], spacing[::-1]


def _grid(model: "Model", size: Sequence[int], spacing: Sequence[float]) -> tuple[list[int], list[int]]:
    forward = model.folder.plans.transpose_forward
    full, old = [size[axis] for axis in forward], [spacing[axis] for axis in forward]
    target = list(model.engine.weights.configuration.spacing)
    target = [old[0], *target] if len(target) < 3 else target
    return [max(1, round(a / b * n)) for a, b, n in zip(old, target, full, strict=True)], full


def _seconds_of_a_tile(model: "Model") -> float:
    engine = model.engine
    channels = engine.weights.input_channels
    tile = torch.zeros(1, channels, *engine.weights.configuration.patch_size)
    flips, engine.backend.flips = engine.backend.flips, []
    try:
        engine.backend(0, tile)  # the first allocates and plans
        began = time.perf_counter()
        engine.backend(0, tile)
        return time.perf_counter() - began
    finally:
        engine.backend.flips = flips


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

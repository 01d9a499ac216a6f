"""The engine: one model on one device, from an image on its grid to labels on the image, in bounded memory.

Tiles go through the network in nnU-Net's order; rows that no later tile touches are divided and decided at once, on
threads of their own, while the network goes on.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from umamba_seg.errors import DataError, UsageError, unknown
from umamba_seg.inference.backends import Backend, TorchBackend
from umamba_seg.inference.decide import Decision, ProbableDecision, Rule, WholeDecision
from umamba_seg.inference.model_folder import Weights
from umamba_seg.inference.preparation import Geometry, Prepared, Resampling, prepare
from umamba_seg.inference.storage import GB, SLABS, Need, Storage, default_budget, slabs
from umamba_seg.inference.sums import Accumulator, DeviceSums, PreciseSums, Sums, bytes_held
from umamba_seg.inference.tiles import Window, padding

LEAST_BUDGET = 64 * 2**20  # bytes; with less than that nothing can be done
WORDS = {"accumulate": ("nnunet", "fp32"), "precision": ("auto", "fp32", "bf16"), "backend": ("torch", "openvino")}

OnTile = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How label maps are made. The defaults are nnU-Net's.

    Args:
        mirror: Average over mirrored tiles.
        step: Distance of tiles in parts of one.
        accumulate: `nnunet` sums tiles in half precision as nnU-Net does, `fp32` more exactly and not the same.
        precision: `auto` is float32 on CPUs and nnU-Net's half precision on CUDA; `fp32` or `bf16`.
        backend: `torch` or `openvino`.
        batch: Tiles per call of the network; None chooses.
        memory: Bytes beside the network's own; None takes half of what is free, at most 4 GB.
    """

    mirror: bool = True
    step: float = 0.5
    accumulate: Literal["nnunet", "fp32"] = "nnunet"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    backend: Literal["torch", "openvino"] = "torch"
    batch: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            what = f"the step must be above 0 and at most 1, got {self.step:g}"
            raise UsageError(what, where="--step", how=["0.5 is nnU-Net's"], code="bad-number")
        if self.memory is not None and self.memory <= 0:
            how = ["leave it out to use half of what is free"]
            raise UsageError("the memory must be above 0 GB", where="--memory", how=how, code="bad-number")
        for name, known in WORDS.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known, where=f"--{name}")

    def changed(self) -> dict[str, object]:
        """What is not nnU-Net's way, by name."""
        usual = Options()
        names = ("mirror", "step", "accumulate", "precision", "backend")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}


class Engine:
    """One model, ready for images.

    Args:
        weights: Of the model.
        device: `cpu`, `cuda` or `mps`.
        options: How label maps are made.
        scratch: Where arrays go that do not fit the budget.
        tell: Told in a sentence when something is done otherwise than asked for, and why.
    """

    def __init__(
        self,
        weights: Weights,
        device: str,
        options: Options | None = None,
        *,
        scratch: Path | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.weights, self.device, self.options = weights, device, options or Options()
        self.scratch, self.tell = scratch or Path.cwd(), tell
        self.budget = default_budget() if self.options.memory is None else self.options.memory
        self.backend: Backend = self._make_backend()
        self.sums_on_host = False
        self.classes = weights.model.labels.num_segmentation_heads
        self.resampling = Resampling.of(weights.configuration, "probabilities", (0, 1))

    @property
    def threads(self) -> int:
        """How many threads the work beside the network may take."""
        return torch.get_num_threads()

    def make_do(self) -> str | None:
        """Need less memory from now on: in words how, None where nothing is left to try."""
        if self.device == "cpu":
            if self.budget < LEAST_BUDGET:
                return None
            self.budget //= 2
            self.options = replace(self.options, batch=1)
            return f"with {self.budget / GB:.1f} GB and one tile at once"
        if self._batch() > 1:
            self.options = replace(self.options, batch=self._batch() // 2)
            return f"with {self.options.batch} tiles at once"
        if not self.sums_on_host:
            self.sums_on_host = True
            return "with sums in the memory of the host"
        self.device = "cpu"
        self.backend = self._make_backend()
        return "on the CPU"

    def prepare(self, image: np.ndarray, properties: dict[str, Any], previous: np.ndarray | None = None) -> Prepared:
        """Bring an image from the plan's reader onto the network's grid."""

        def storage(grid: Sequence[int], channels: int) -> Storage:
            return self._storage(grid, image.shape[1:], channels)

        return prepare(image, properties, self.weights, storage, previous=previous, threads=self.threads)

    def labels(
        self,
        prepared: Prepared,
        on_tile: OnTile = lambda done, total: None,
        *,
        probabilities: np.ndarray | None = None,
    ) -> np.ndarray:
        """The label map of an image, (z, y, x) as its reader gave it.

        Args:
            prepared: The image on the grid.
            on_tile: Told how many tiles of how many are done.
            probabilities: Where to put those of all classes or regions, (c, z, y, x) like the label map.

        Raises:
            DataError: The network gives numbers that are none.
        """
        geometry, storage, backward = prepared.geometry, prepared.storage, self.weights.model.plans.transpose_backward
        if storage.on_disk:
            names = ", ".join(storage.on_disk)
            self.tell(f"{names} of {'×'.join(map(str, geometry.full))} voxels lie on disk to stay within the budget")
        full = storage.zeros("labels", geometry.full, self.label_type)
        sink = self._sink(geometry, full, probabilities)
        is_precise = self.options.accumulate == "fp32"
        if not self._sweep(prepared, sink.take, on_tile, is_precise=is_precise):
            sink = sink.anew(self._rule(is_rounded=False))
            if not is_precise:
                self.tell("sums beyond half precision: the case is summed in float32, where nnU-Net gives up")
            if is_precise or not self._sweep(prepared, sink.take, on_tile, is_precise=True):
                raise DataError("the network gives NaN or infinite numbers", code="not-finite")
        sink.finish()
        return full.transpose(backward)

    def _sink(self, geometry: Geometry, full: np.ndarray, probabilities: np.ndarray | None) -> Decision:
        inside = None
        if probabilities is not None:
            forward = self.weights.model.plans.transpose_forward
            moved = probabilities.transpose(0, *(axis + 1 for axis in forward))
            moved[:] = 0
            if not self.weights.model.labels.has_regions:
                moved[0] = 1
            inside = moved[(slice(None), *geometry.box)]
        way = self.resampling
        settings: dict[str, Any] = {"threads": self.threads}
        if way.original is not None:
            model, spacings = self.weights.model, (geometry.grid_spacing, geometry.spacing)
            manager = model.plans.label_manager(model.dataset_json)
            settings |= {"original": way.original, "spacings": spacings, "label_manager": manager}
            kind: type[Decision] = WholeDecision
        else:
            apart = way.separate(geometry.grid_spacing, geometry.spacing)
            settings |= {"order": way.order, "separate": apart}
            kind = Decision if inside is None else ProbableDecision
        if inside is not None:
            settings["probabilities"] = inside
        rule = self._rule(is_rounded=self.options.accumulate == "nnunet")
        return kind(geometry.grid, full[geometry.box], rule, **settings)

    @property
    def label_type(self) -> type[np.generic]:
        """What label maps are made of."""
        return np.uint8 if len(self.weights.model.labels.foreground_labels) < 255 else np.uint16

    def window(self, grid: Sequence[int]) -> Window:
        """The tiles over a grid, padded to the size of a tile."""
        tile = self.weights.tile
        padded = tuple(max(g, t) for g, t in zip(grid, tile, strict=True))
        return Window(padded, tile, self.options.step, self.weights.is_flat)  # type: ignore[arg-type]

    def _make_backend(self) -> Backend:
        options = self.options
        if options.backend == "openvino":
            from umamba_seg.inference import openvino  # an optional package

            return openvino.make(self.weights, self.device, mirror=options.mirror, precision=options.precision)
        return TorchBackend(self.weights, self.device, mirror=options.mirror, precision=options.precision)

    def _rule(self, *, is_rounded: bool) -> Rule:
        labels = self.weights.model.labels
        order = labels.regions_class_order
        return Rule(tuple(order) if labels.has_regions and order is not None else None, is_rounded)

    def bytes_for(self, grid: Sequence[int], full: Sequence[int], channels: int) -> int:
        """What an image of this size takes at the most, within the budget."""
        need = self._need(grid, full, channels)
        return min(need.sums + need.image + need.labels + slabs(need, *SLABS[0]), self.budget)

    def _storage(self, grid: Sequence[int], full: Sequence[int], channels: int) -> Storage:
        return Storage.within(self.budget, self._need(grid, full, channels), self.scratch)

    def _need(self, grid: Sequence[int], full: Sequence[int], channels: int) -> Need:
        window = self.window(grid)
        is_precise = self.options.accumulate == "fp32"
        voxels, plane = int(np.prod(grid)), window.grid[1] * window.grid[2]
        return Need(
            sums=bytes_held(window, self.classes, self.backend.folds, is_precise=is_precise),
            row=self.classes * plane * 4,
            image=voxels * channels * 4,
            labels=int(np.prod(full)) * np.dtype(self.label_type).itemsize,
        )

    def _sweep(
        self,
        prepared: Prepared,
        take: Callable[[np.ndarray], None],
        on_tile: OnTile,
        *,
        is_precise: bool,
    ) -> bool:
        """Send all tiles through the network and hand on finished rows; whether all sums were finite."""
        grid, storage = prepared.geometry.grid, prepared.storage
        window = self.window(grid)
        before = [low for low, _ in padding(grid, window.tile)]
        sums = self._accumulator(window, storage, is_precise=is_precise)
        crop = _Crop(grid, before, sums, storage.rows)
        columns, total, done = window.columns(), window.count(), 0
        slab = (self.classes, 1 + storage.rows, *grid[1:])
        with _Waiting(take, storage.waiting, slab) as waiting:
            for row in window.rows():
                if row + window.tile[0] > sums.first + sums.height:
                    crop.hand_on(row - sums.first, waiting)
                for at in range(0, len(columns), self._batch()):
                    starts = [(row, y, x) for y, x in columns[at : at + self._batch()]]
                    self._add(prepared.image, starts, before, sums)
                    storage.give_way()
                    done += len(starts)
                    on_tile(done, total)
                if not sums.is_finite:
                    return False
            crop.hand_on(window.grid[0] - sums.first, waiting)
        return True

    def _batch(self) -> int:
        return self.options.batch or (1 if self.device == "cpu" else 4)

    def _add(
        self, image: np.ndarray, starts: Sequence[tuple[int, int, int]], before: Sequence[int], sums: Accumulator
    ) -> None:
        tiles = torch.stack([_cut(image, start, before, self.weights.tile) for start in starts])
        if self.weights.is_flat:
            tiles = tiles[:, :, 0].clone(memory_format=torch.contiguous_format)  # strides of 1 choose other kernels
        for fold in range(self.backend.folds):
            made = self.backend(fold, tiles)
            for tile, start in zip(made[:, :, None] if self.weights.is_flat else made, starts, strict=True):
                sums.add(fold, tile, start)
        for start in starts:
            sums.count(start)

    def _accumulator(self, window: Window, storage: Storage, *, is_precise: bool) -> Accumulator:
        folds = self.backend.folds
        if self.device != "cpu" and not is_precise:
            on = "cpu" if self.sums_on_host else self.device
            return DeviceSums(window, self.classes, folds, torch.device(on))
        kind = PreciseSums if is_precise else Sums

        def make(shape: tuple[int, ...], number: type[np.generic]) -> np.ndarray:
            return storage.zeros("sums", shape, number)

        return kind(window, self.classes, folds, make, self.threads)


class _Crop:
    """Takes finished rows out of sums, without what padding added, a few at a time."""

    def __init__(self, grid: Sequence[int], before: Sequence[int], sums: Accumulator, most: int) -> None:
        self.sums, self.most = sums, most
        self.rows = (before[0], before[0] + grid[0])
        y, x = (slice(low, low + size) for low, size in zip(before[1:], grid[1:], strict=True))
        self.plane = (y, x)
        self._last: np.ndarray | None = None

    def hand_on(self, rows: int, waiting: "_Waiting") -> None:
        """Finish the first rows held; each slab begins with the last row of the one before."""
        first = self.sums.first
        for low in range(0, rows, self.most):
            begin, end = max(first + low, self.rows[0]), min(first + min(low + self.most, rows), self.rows[1])
            if begin < end:
                slab = waiting.slab(1 + end - begin)
                self.sums.finish(slice(begin - first, end - first), self.plane, slab)
                slab[:, 0] = slab[:, 1] if self._last is None else self._last
                self._last = slab[:, -1].copy()
                waiting.put(slab)
        self.sums.move_on(rows)


class _Waiting:
    """Takes slabs on a thread of its own, at most so many at once; what goes wrong there is raised here.

    Their memory is used again: fresh pages cost more than what is computed in them.
    """

    def __init__(self, take: Callable[[np.ndarray], None], most: int, shape: Sequence[int]) -> None:
        self.take, self.most, self.shape = take, most, tuple(shape)
        self.pool = ThreadPoolExecutor(1)
        self.slabs: list[tuple[Future[None], np.ndarray]] = []
        self.free: list[np.ndarray] = []

    def slab(self, rows: int) -> np.ndarray:
        """Memory for so many rows, of all classes."""
        classes, _, *plane = self.shape
        memory = self.free.pop() if self.free else np.empty(self.shape, np.float32)
        return memory.reshape(-1)[: classes * rows * plane[0] * plane[1]].reshape(classes, rows, *plane)

    def put(self, slab: np.ndarray) -> None:
        """Hand on a slab, when those before are few enough."""
        while len(self.slabs) >= self.most:
            future, done = self.slabs.pop(0)
            future.result()
            self.free.append(done)
        memory = slab.base if slab.base is not None else slab
        self.slabs.append((self.pool.submit(self.take, slab), memory))

    def __enter__(self) -> "_Waiting":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future, _slab in self.slabs:
                future.result()


def _cut(image: np.ndarray, start: Sequence[int], before: Sequence[int], tile: Sequence[int]) -> Tensor:
    """A tile of the padded image, (c, *tile); zero where it reaches beyond the image."""
    low = [s - b for s, b in zip(start, before, strict=True)]
    inside = tuple(slice(max(a, 0), min(a + t, n)) for a, t, n in zip(low, tile, image.shape[1:], strict=True))
    part = image[(slice(None), *inside)]
    if part.shape[1:] == tuple(tile):
        return torch.from_numpy(np.ascontiguousarray(part))
    whole = np.zeros((image.shape[0], *tile), np.float32)
    place = tuple(slice(s.start - a, s.stop - a) for s, a in zip(inside, low, strict=True))
    whole[(slice(None), *place)] = part
    return torch.from_numpy(whole)

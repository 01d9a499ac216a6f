"""The shape of a U-Net: how many stages, how wide, how deep, and how each changes the size of a map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from umamba_seg.errors import UsageError

Size: TypeAlias = tuple[int, ...]  # one number per spatial axis


@dataclass(frozen=True, slots=True)
class Topology:
    """A U-Net as plans describe it; one entry per encoder stage, the decoder from deep to shallow."""

    features: tuple[int, ...]
    kernels: tuple[Size, ...]
    strides: tuple[Size, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    @classmethod
    def from_plan(
        cls,
        n_stages: int,
        dims: int,
        *,
        features_per_stage: int | Sequence[int],
        kernel_sizes: int | Sequence[int | Sequence[int]],
        strides: int | Sequence[int | Sequence[int]],
        encoder_blocks: int | Sequence[int],
        decoder_blocks: int | Sequence[int],
    ) -> "Topology":
        """Read nnU-Net's keyword arguments, where one number may stand for a list of equal ones."""
        if n_stages < 2:
            raise UsageError(f"a U-Net needs n_stages of 2 or more, got {n_stages}", code="bad-plan")
        return cls(
            features=_per_stage("features_per_stage", features_per_stage, n_stages),
            kernels=_sizes("kernel_sizes", kernel_sizes, n_stages, dims),
            strides=_sizes("strides", strides, n_stages, dims),
            encoder_blocks=_per_stage("n_conv_per_stage", encoder_blocks, n_stages),
            decoder_blocks=_per_stage("n_conv_per_stage_decoder", decoder_blocks, n_stages - 1),
        )

    @property
    def n_stages(self) -> int:
        """Resolutions, the deepest included."""
        return len(self.features)

    @property
    def decoder_order(self) -> range:
        """The encoder stages whose maps the decoder stages are like, in the order of the decoder."""
        return range(self.n_stages - 2, -1, -1)

    @property
    def scales(self) -> list[Size]:
        """Voxels of the input per voxel of the map that each encoder stage writes."""
        return [tuple(map(math.prod, zip(*self.strides[: s + 1], strict=True))) for s in range(self.n_stages)]

    @property
    def total_stride(self) -> Size:
        """Voxels of the input per voxel of the deepest map."""
        return self.scales[-1]

    def map_sizes(self, patch: Sequence[int]) -> list[Size]:
        """The size of the map that each encoder stage writes for an input of the size of `patch`."""
        sizes, size = [], tuple(int(n) for n in patch)
        for stride in self.strides:
            size = tuple(n // step for n, step in zip(size, stride, strict=True))
            sizes.append(size)
        return sizes


def _per_stage(option: str, value: int | Sequence[int], n: int) -> tuple[int, ...]:
    entries = (value,) * n if isinstance(value, int) else tuple(value)
    _check_length(option, entries, n)
    if any(entry < 1 for entry in entries):
        raise UsageError(f"each entry of {option} must be 1 or more, got {list(entries)}", code="bad-plan")
    return tuple(int(entry) for entry in entries)


def _sizes(option: str, value: int | Sequence[int | Sequence[int]], n: int, dims: int) -> tuple[Size, ...]:
    entries = (value,) * n if isinstance(value, int) else tuple(value)
    _check_length(option, entries, n)
    sizes = tuple((entry,) * dims if isinstance(entry, int) else tuple(int(i) for i in entry) for entry in entries)
    for size in sizes:
        if len(size) != dims:
            raise UsageError(f"each entry of {option} needs {dims} numbers, got {list(size)}", code="bad-plan")
    return sizes


def _check_length(option: str, entries: Sequence[object], n: int) -> None:
    if len(entries) != n:
        raise UsageError(f"{option} needs {n} entries, got {len(entries)}", code="bad-plan")

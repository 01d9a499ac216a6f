"""What the makers of slots find out about the place of a mixer."""

from collections.abc import Sequence
from typing import Any

import torch

from umamba_seg.errors import UsageError
from umamba_seg.mixers import create


def read_spacing(spacing: Sequence[float] | None, dims: int) -> tuple[float, ...] | None:
    """The edges of a voxel of the input in mm; None stays None.

    Raises:
        UsageError: There are more or fewer than axes, or one is not positive.
    """
    if spacing is None:
        return None
    if len(spacing) != dims or not all(mm > 0 for mm in spacing):
        raise UsageError(f"spacing needs {dims} positive lengths in mm, got {list(spacing)}", code="bad-plan")
    return tuple(float(mm) for mm in spacing)


def spacing_of_map(spacing: tuple[float, ...] | None, scale: Sequence[int]) -> tuple[float, ...] | None:
    """The same for a map, each of whose voxels is so many of the input long on each axis."""
    return None if spacing is None else tuple(n * mm for n, mm in zip(scale, spacing, strict=True))


def parameters_of_mixer(name: str, channels: int, dims: int, **options: Any) -> int:
    """How many numbers a mixer trains; nothing is allocated for it."""
    with torch.device("meta"):
        mixer = create(name, channels, spatial_dims=dims, **options)
    return 0 if mixer is None else sum(parameter.numel() for parameter in mixer.parameters())

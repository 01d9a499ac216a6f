"""Mixers for networks whose published layers stand under the name `mamba`, whatever they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from umamba_seg.errors import UsageError
from umamba_seg.mixers import create
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.place import Place

PUBLISHED_NAME = "mamba"


@dataclass(frozen=True, slots=True)
class MixerMaker:
    """Makes the mixers of one network.

    Args:
        mixer: What they are, by name; with `none` there are none.
        options: Settings of the mixer.
        published: The mixer of the paper. Others match its parameters.
        dims: Spatial axes.
        spacing: Edges of a voxel of the input in mm, where known.
    """

    mixer: str
    options: Mapping[str, Any]
    published: str
    dims: int
    spacing: tuple[float, ...] | None

    @property
    def is_published(self) -> bool:
        """Whether the mixers are those of the paper."""
        return self.mixer == self.published

    @property
    def name(self) -> str:
        """The name under which their parameters stand."""
        return PUBLISHED_NAME if self.is_published else self.mixer

    def mixer_for(self, channels: int, scale: Sequence[int], **published_options: Any) -> Mixer | None:
        """A mixer for maps of so many channels; None with `none`.

        Args:
            channels: c of the maps.
            scale: Voxels of the input per voxel of the maps, one number per axis.
            published_options: Settings that the published layer has in this place.
        """
        spacing = None if self.spacing is None else tuple(n * mm for n, mm in zip(scale, self.spacing, strict=True))
        place = Place((3,) * self.dims, spacing, self._published_parameters(channels, published_options))
        options = {**published_options, **self.options} if self.is_published else self.options
        return create(self.mixer, channels, spatial_dims=self.dims, place=place, **options)

    def _published_parameters(self, channels: int, options: Mapping[str, Any]) -> int:
        with torch.device("meta"):
            mixer = create(self.published, channels, spatial_dims=self.dims, **options)
        return 0 if mixer is None else sum(parameter.numel() for parameter in mixer.parameters())


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

"""Mixers for networks whose published layers stand under the name `mamba`, whatever they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umamba_seg.mixers import create
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.place import Place
from umamba_seg.networks.placing import parameters_of_mixer, spacing_of_map

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
        parameters = parameters_of_mixer(self.published, channels, self.dims, **published_options)
        place = Place((3,) * self.dims, spacing_of_map(self.spacing, scale), parameters)
        options = {**published_options, **self.options} if self.is_published else self.options
        return create(self.mixer, channels, spatial_dims=self.dims, place=place, **options)

"""Which slots a network gets, how wide each is, and what is known of its place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from umamba_seg.mixers import create
from umamba_seg.mixers.place import Place
from umamba_seg.mixers.registry import NOWHERE
from umamba_seg.networks.placing import parameters_of_mixer, spacing_of_map
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.topology import Size, Topology


@dataclass(frozen=True, slots=True)
class SlotMaker:
    """Makes the slots of one network.

    Args:
        mixer: What fills them, by name; with `none` there are no slots.
        mixer_options: Settings of the mixer.
        published_mixer: The mixer of the paper. Only this one is used over channels; others match its parameters.
        dims: Spatial axes.
        topology: The stages for whose maps slots are made.
        sizes: Sizes of the maps of each encoder stage, if the published mixer works over the channels of those with no
            more voxels than channels; None if it works over voxels everywhere.
        spacing: Edges of a voxel of the input in mm, where known.
        is_residual: See `MixerSlot`.
    """

    mixer: str
    mixer_options: Mapping[str, Any]
    published_mixer: str
    dims: int
    topology: Topology
    sizes: Sequence[Size] | None
    spacing: tuple[float, ...] | None
    is_residual: bool

    def slot(self, stage: int) -> MixerSlot | None:
        """A slot for maps like those of this encoder stage; None without a mixer."""
        voxels = self._voxels_if_small(stage) if self.mixer == self.published_mixer else None
        if voxels is None:
            width, dims, place = self.topology.features[stage], self.dims, self.place(stage)
        else:
            width, dims, place = voxels, 1, NOWHERE
        mixer = create(self.mixer, width, spatial_dims=dims, place=place, **self.mixer_options)
        if mixer is None:
            return None
        is_channel_wise = voxels is not None
        return MixerSlot(mixer, self.mixer, width, is_channel_wise=is_channel_wise, is_residual=self.is_residual)

    def slots(self, stages: Mapping[int, int]) -> nn.ModuleDict:
        """Slots by their index, given the encoder stage whose maps each is for; empty without a mixer."""
        slots = {str(index): self.slot(stage) for index, stage in stages.items()}
        return nn.ModuleDict({index: slot for index, slot in slots.items() if slot is not None})

    def place(self, stage: int) -> Place:
        """What a mixer can be told of the maps of this encoder stage."""
        spacing = spacing_of_map(self.spacing, self.topology.scales[stage])
        return Place(self.topology.kernels[stage], spacing, self._published_parameters(stage))

    def _published_parameters(self, stage: int) -> int:
        voxels = self._voxels_if_small(stage)
        width, dims = (self.topology.features[stage], self.dims) if voxels is None else (voxels, 1)
        return parameters_of_mixer(self.published_mixer, width, dims)

    def _voxels_if_small(self, stage: int) -> int | None:
        """Voxels of a map over whose channels the published mixer works; None where it works over the voxels."""
        if self.sizes is None:
            return None
        voxels = math.prod(self.sizes[stage])
        return voxels if voxels <= self.topology.features[stage] else None

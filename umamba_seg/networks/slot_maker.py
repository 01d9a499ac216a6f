"""Which slots a network gets, and how wide each is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from umamba_seg.mixers import create
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.topology import Size


@dataclass(frozen=True, slots=True)
class SlotMaker:
    """Makes the slots of one network.

    Args:
        mixer: What fills them, by name; with `none` there are no slots.
        mixer_options: Settings of the mixer.
        dims: Spatial axes.
        features: Channels of each encoder stage.
        sizes: Sizes of the maps of each encoder stage, if those with no more voxels than channels are to be mixed over
            their channels; None if all are mixed over their voxels.
        is_residual: See `MixerSlot`.
    """

    mixer: str
    mixer_options: Mapping[str, Any]
    dims: int
    features: tuple[int, ...]
    sizes: Sequence[Size] | None
    is_residual: bool

    def slot(self, stage: int) -> MixerSlot | None:
        """A slot for maps like those of this encoder stage; None without a mixer."""
        width, dims, is_channel_wise = self.features[stage], self.dims, False
        if self.sizes is not None and math.prod(self.sizes[stage]) <= width:
            width, dims, is_channel_wise = math.prod(self.sizes[stage]), 1, True
        mixer = create(self.mixer, width, spatial_dims=dims, **self.mixer_options)
        if mixer is None:
            return None
        return MixerSlot(mixer, self.mixer, width, is_channel_wise=is_channel_wise, is_residual=self.is_residual)

    def slots(self, stages: Mapping[int, int]) -> nn.ModuleDict:
        """Slots by their index, given the encoder stage whose maps each is for; empty without a mixer."""
        slots = {str(index): self.slot(stage) for index, stage in stages.items()}
        return nn.ModuleDict({index: slot for index, slot in slots.items() if slot is not None})

"""A slot: the place in a U-Net where a mixer lets the voxels of one map see each other.

Shapes: b batch, c channels, s spatial axes, p voxels of a map.
"""

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from umamba_seg.mixers.mixer import Mixer


class MixerSlot(nn.Module):
    """LayerNorm, then a mixer; norm, residual and result have the precision of the parameters, under autocast too.

    Args:
        mixer: What fills the slot.
        name: Name of the mixer; its parameters stand under it.
        width: Numbers per token, the channels of the mixer.
        is_channel_wise: The tokens are the channels, each made of all p voxels, instead of the voxels, each made of all
            c channels. This ties the weights to one size of map.
        is_residual: What the mixer writes is added to the map instead of replacing it.
    """

    def __init__(self, mixer: Mixer, name: str, width: int, *, is_channel_wise: bool, is_residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.add_module(name, mixer)
        self.name, self.is_channel_wise, self.is_residual = name, is_channel_wise, is_residual

    @property
    def mixer(self) -> Mixer:
        """What fills the slot."""
        return cast(Mixer, self.get_submodule(self.name))

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map (b, c, *s)."""
        x = x.to(self.norm.weight.dtype)
        y = self._mix_channels(x) if self.is_channel_wise else self._mix_voxels(x)
        return x + y if self.is_residual else y

    def saved_elements(self, size: Sequence[int], channels: int) -> int:
        """Numbers that a training step keeps here per image, for a map of this size with so many channels."""
        return self.mixer.saved_elements(channels if self.is_channel_wise else math.prod(size))

    def _mix_voxels(self, x: Tensor) -> Tensor:
        y = self.mixer(self.norm(x.movedim(1, -1))).movedim(-1, 1)  # tokens (b, *s, c)
        return y.contiguous() if x.is_contiguous() else y

    def _mix_channels(self, x: Tensor) -> Tensor:
        return self.mixer(self.norm(x.flatten(2))).view(x.shape)  # tokens (b, c, p)

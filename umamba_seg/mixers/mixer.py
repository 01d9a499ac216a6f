"""What every mixer is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """Lets every voxel of a feature map see the others.

    Built as `Mixer(channels, *, spatial_dims, **options)`, with options that JSON can hold.
    It neither norms its input nor adds a residual: the slot that holds it does.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Mix `x`, channels last (b, *s, c), into a map of the same shape and dtype."""

    @abstractmethod
    def saved_elements(self, tokens: int) -> int:
        """Numbers that a training step keeps for the backward pass of one map of so many voxels, its input included."""

"""What networks share that write logits at full resolution only, and start as torch starts their layers."""

from torch import Tensor, nn


class SingleResolution(nn.Module):
    """A network that nnU-Net can train with deep supervision, although it has one resolution.

    Args:
        deep_supervision: Return a list that holds the logits; switched later by `decoder.deep_supervision`.
    """

    def __init__(self, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision

    @property
    def decoder(self) -> nn.Module:
        """Where nnU-Net switches `deep_supervision`: the network itself, whatever its decoder is called."""
        return self

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Leave the values with which torch and the mixers start, as published; nnU-Net applies it to every module."""

    def _as_asked(self, logits: Tensor) -> Tensor | list[Tensor]:
        return [logits] if self.deep_supervision else logits

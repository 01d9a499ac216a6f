"""What computes a tile: torch, on any device."""

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from umamba_seg.inference.model_folder import Weights
from umamba_seg.inference.quick_layers import quicken

COMPILE, YES = "nnUNet_compile", ("true", "1", "t")  # as nnU-Net's predictor reads it


class Backend(Protocol):
    """Computes tiles, (b, c, *tile) to (b, classes, *tile), for one fold."""

    name: str
    folds: int
    flips: list[tuple[int, ...]]

    def __call__(self, fold: int, tiles: Tensor) -> Tensor:
        """The logits, averaged over mirrored tiles where that was asked for."""


class TorchBackend:
    """The networks as torch runs them.

    Args:
        weights: Of the model.
        device: `cpu`, `cuda` or `mps`.
        mirror: Whether tiles are also seen mirrored.
        precision: `fp32` or `bf16`; on CUDA nnU-Net's half precision where it is `auto`.
    """

    name = "torch"

    def __init__(self, weights: Weights, device: str, *, mirror: bool, precision: str = "auto") -> None:
        self.device = torch.device(device)
        if device == "cuda":
            torch.backends.cudnn.benchmark = True  # tiles have one size
        networks: list[nn.Module] = [network.to(self.device) for network in weights.networks()]
        is_compiled = os.environ.get(COMPILE, "").lower() in YES
        if device == "cpu" and precision != "bf16" and not is_compiled:
            for network in networks:
                quicken(network)
        self.networks = [torch.compile(network) for network in networks] if is_compiled else networks
        self.folds = len(self.networks)
        self.flips = flips(weights.mirror_axes) if mirror else []
        self.precision = precision

    def __call__(self, fold: int, tiles: Tensor) -> Tensor:
        """The logits, averaged over mirrored tiles where that was asked for."""
        with torch.inference_mode(), self._autocast():
            return averaged(self.networks[fold], tiles.to(self.device), self.flips)

    def _autocast(self) -> Any:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        if self.precision == "auto" and self.device.type == "cuda":
            return torch.autocast("cuda")
        return nullcontext()


def flips(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Every set of axes to mirror, of (b, c, *spatial), in nnU-Net's order."""
    spatial = [axis + 2 for axis in axes or ()]
    return [chosen for count in range(len(spatial)) for chosen in itertools.combinations(spatial, count + 1)]


def averaged(network: Callable[[Tensor], Tensor], tiles: Tensor, axes: Sequence[tuple[int, ...]]) -> Tensor:
    """What a network makes of tiles and of their mirror images, added one after the other as nnU-Net does."""
    total = network(tiles)
    for flip in axes:
        total += torch.flip(network(torch.flip(tiles, flip)), flip)
    if axes:
        total /= len(axes) + 1
    return total

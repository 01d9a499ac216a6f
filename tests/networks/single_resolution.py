"""Small forms of the networks that return logits of one resolution."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from umamba_seg import mixers
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.place import Place
from umamba_seg.mixers.registry import NOWHERE
from umamba_seg.networks import create, mixer_maker

INPUT_CHANNELS, NUM_CLASSES = 2, 3
TINY: dict[str, dict[str, Any]] = {
    "segmamba": {"depths": [1, 2], "features": [8, 16], "hidden": 24},
    "segmamba_v2": {"depths": [1, 1, 2], "features": [8, 8, 16], "hidden": 16},
    "lightm_unet": {"init_filters": 8, "blocks_down": [1, 1, 2], "blocks_up": [1, 2]},
}
SIZE = {2: [16, 24], 3: [8, 16, 24]}
KINDS = [(name, dims) for name in TINY for dims in (2, 3)]


def build(name: str, dims: int = 3, *, deep_supervision: bool = False, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    kwargs = {**TINY[name], "dims": dims, **changes}
    return create(name, INPUT_CHANNELS, NUM_CLASSES, deep_supervision, **kwargs)


def image(dims: int = 3, batch: int = 1, size: list[int] | None = None) -> Tensor:
    shape = (batch, INPUT_CHANNELS, *(size or SIZE[dims]))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def mixers_of(network: nn.Module) -> list[Mixer]:
    return [module for module in network.modules() if isinstance(module, Mixer)]


def spacings_told(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> list[tuple[float, ...] | None]:
    """What the slots of a network tell its mixers of the spacing of their maps, slot by slot."""
    told = []

    def spy(mixer: str, channels: int, *, spatial_dims: int, place: Place = NOWHERE, **options: Any) -> Mixer | None:
        if mixer == "axes":
            told.append(place.spacing)
        return mixers.create(mixer, channels, spatial_dims=spatial_dims, place=place, **options)

    monkeypatch.setattr(mixer_maker, "create", spy)
    build(name, mixer="axes", **changes)
    return told

"""Networks: plan-driven U-Nets with slots for mixers, built by stock nnU-Net from the plans.

The dotted paths of the classes stand in plans and checkpoints and are frozen. Importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from umamba_seg.networks.registry import NETWORKS, NetworkRecord, create, find

if TYPE_CHECKING:
    from umamba_seg.networks.lightm_unet import LightMUNet
    from umamba_seg.networks.reference import from_reference
    from umamba_seg.networks.resample import resample_weights
    from umamba_seg.networks.segmamba import SegMamba
    from umamba_seg.networks.segmamba_v2 import SegMambaV2
    from umamba_seg.networks.umamba import UMambaBot, UMambaEnc

__all__ = [
    "NETWORKS",
    "LightMUNet",
    "NetworkRecord",
    "SegMamba",
    "SegMambaV2",
    "UMambaBot",
    "UMambaEnc",
    "create",
    "find",
    "from_reference",
    "resample_weights",
]

_LAZY = {
    "LightMUNet": "umamba_seg.networks.lightm_unet",
    "SegMamba": "umamba_seg.networks.segmamba",
    "SegMambaV2": "umamba_seg.networks.segmamba_v2",
    "UMambaBot": "umamba_seg.networks.umamba",
    "UMambaEnc": "umamba_seg.networks.umamba",
    "from_reference": "umamba_seg.networks.reference",
    "resample_weights": "umamba_seg.networks.resample",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

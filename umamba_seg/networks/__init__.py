"""Networks: plan-driven U-Nets with slots for mixers, built by stock nnU-Net from the plans.

The dotted paths of the classes stand in plans and checkpoints and are frozen. Importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from umamba_seg.networks.registry import NETWORKS, NetworkRecord, find

if TYPE_CHECKING:
    from umamba_seg.networks.reference import from_reference
    from umamba_seg.networks.umamba import UMambaBot, UMambaEnc

__all__ = ["NETWORKS", "NetworkRecord", "UMambaBot", "UMambaEnc", "find", "from_reference"]

_LAZY = {
    "UMambaBot": "umamba_seg.networks.umamba",
    "UMambaEnc": "umamba_seg.networks.umamba",
    "from_reference": "umamba_seg.networks.reference",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Mamba U-Nets for medical image segmentation, inside an unforked nnU-Net v2.

Importing this package imports the standard library only; torch and nnU-Net come with what needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umamba_seg.nnunet.predict import predict
    from umamba_seg.nnunet.train import train
    from umamba_seg.planning.plan import plan
    from umamba_seg.planning.preprocess import preprocess

__version__ = "0.1.0"
__all__ = ["plan", "predict", "preprocess", "train"]

_LAZY = {
    "plan": "umamba_seg.planning.plan",
    "preprocess": "umamba_seg.planning.preprocess",
    "predict": "umamba_seg.nnunet.predict",
    "train": "umamba_seg.nnunet.train",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

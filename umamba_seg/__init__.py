"""Mamba U-Nets for medical image segmentation, inside an unforked nnU-Net v2.

Importing this package imports the standard library only; torch and nnU-Net come with what needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umamba_seg.inference.model import Model, Segmentation, load_model
    from umamba_seg.inference.predict import predict
    from umamba_seg.nnunet.train import train
    from umamba_seg.planning.plan import plan
    from umamba_seg.planning.preprocess import preprocess

__version__ = "0.1.0"
__all__ = ["Model", "Segmentation", "load_model", "plan", "predict", "preprocess", "train"]

_LAZY = {
    "plan": "umamba_seg.planning.plan",
    "preprocess": "umamba_seg.planning.preprocess",
    "Model": "umamba_seg.inference.model",
    "Segmentation": "umamba_seg.inference.model",
    "load_model": "umamba_seg.inference.model",
    "predict": "umamba_seg.inference.predict",
    "train": "umamba_seg.nnunet.train",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

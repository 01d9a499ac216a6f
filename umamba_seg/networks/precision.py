"""Wide maps: float32 under float16 autocast, from the slot that writes them to the layer that brings them down.

What U-Mamba's slots write has no norm behind it and reaches 1e6 (state-spaces/mamba issue 72). Float16 ends at 65504,
and one inf becomes NaN for the whole image in the next instance norm. So slots write float32, the parts that read it
compute in float32, and their result is narrowed again. A narrowed map can still grow along the convolutions that no
norm follows, those of skips and upsampling, each of which may double it; what they write saturates too. Bfloat16 has
the range; in float32 nothing is done.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

# Saturation, should no layer bring a wide map down: the convolutions that follow need room to sum below 2**16.
FLOAT16_LIMIT = 2.0**12


def is_wide(x: Tensor) -> bool:
    """Whether a slot wrote `x`: what convolutions write under float16 autocast is float16."""
    return x.dtype == torch.float32 and autocast_dtype(x) == torch.float16


def as_wide(x: Tensor) -> AbstractContextManager[None]:
    """Within it, operations on a wide `x` compute in float32; on any other as ever."""
    return torch.autocast(x.device.type, enabled=False) if is_wide(x) else nullcontext()


def narrowed(x: Tensor) -> Tensor:
    """A wide `x` in float16, which saturates instead of overflowing; any other as it is."""
    return x.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT).half() if is_wide(x) else x


def saturated(x: Tensor) -> Tensor:
    """A float16 `x`, which nothing else may use, with its values limited in place; any other as it is."""
    return F.hardtanh(x, -FLOAT16_LIMIT, FLOAT16_LIMIT, inplace=True) if x.dtype == torch.float16 else x


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a convolution of `x` would compute."""
    device_type = x.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return x.dtype

"""Where a mixer computes in the dtype of its parameters, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch


def outside_autocast(device_type: str) -> AbstractContextManager[None]:
    """Within it autocast is off on this type of device."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # meta tensors know no autocast and refuse to leave it

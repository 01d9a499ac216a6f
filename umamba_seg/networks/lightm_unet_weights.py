"""What weights of LightM-UNet tell about the network they are of."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from umamba_seg.errors import ModelError
from umamba_seg.networks.published import count_of

FIRST_CONV = "convInit.1.conv.weight"


def read_lightm_weights(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of the network. No weight tells its strides; they are 2 everywhere, as published.

    Raises:
        ModelError: These are no weights of LightM-UNet.
    """
    if FIRST_CONV not in weights:
        raise ModelError(f"these are no weights of LightM-UNet: they lack {FIRST_CONV}", code="bad-weights")
    filters, dims = len(weights[FIRST_CONV]), weights[FIRST_CONV].dim() - 2
    steps = count_of(weights, "up_samples.{}.0.conv.weight")
    return {
        "dims": dims,
        "init_filters": filters,
        "blocks_down": [count_of(weights, f"down_layers.{i}.{{}}.norm1.weight", start=1) for i in range(steps + 1)],
        "blocks_up": [count_of(weights, f"up_layers.{j}.{{}}.norm1.weight") for j in range(steps)],
        "strides": [[1] * dims, *([2] * dims for _ in range(steps))],
        "mixer": "mamba",
    }

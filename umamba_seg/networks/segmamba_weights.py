"""What weights of SegMamba tell about the network they are of.

The three generations of v1 name their layers alike: those of three routes have sets of weights without suffix, `_b` and
`_s`, those of two have the first two, and those of one the first. V2 has other convolutions in its trunk.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from umamba_seg.errors import ModelError
from umamba_seg.networks.published import count_of, tensor, unwrapped
from umamba_seg.networks.segmamba import PUBLISHED_SLICES

FIRST_CONV = "vit.downsample_layers.0.0.weight"
V1_CONV, V2_CONV = "vit.gscs.{}.proj.weight", "vit.gscs.{}.0.deep_path.0.block.0.weight"


def read_segmamba_weights(state_dict: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Name and keyword arguments of the network, and the weights under the names that it has.

    Whether the layers of v1 add to the map (`layer_residual`) cannot be read from weights; who knows it must say so.

    Args:
        state_dict: Bare, under the entry `module`, or with names that begin with `module.`. It is not changed.

    Raises:
        ModelError: These are no weights of SegMamba, or some are missing.
    """
    weights = unwrapped(state_dict)
    if FIRST_CONV not in weights:
        raise _foreign(weights)
    is_v2 = V2_CONV.format(0) in weights
    conv = V2_CONV if is_v2 else V1_CONV
    stages, dims = count_of(weights, conv), tensor(weights, FIRST_CONV).dim() - 2
    block = "vit.gscs.{}.{{}}.se.fc.0.weight" if is_v2 else "vit.stages.{}.{{}}.norm.weight"
    # the transposed convolution of a level has the stride to it as its kernel
    strides = [tensor(weights, f"decoder{i + 2}.transp_conv.conv.weight").shape[2:] for i in range(stages)]
    arch_kwargs = {
        "dims": dims,
        "depths": [count_of(weights, block.format(i)) for i in range(stages)],
        "features": [len(weights[conv.format(i)]) for i in range(stages)],
        "hidden": len(tensor(weights, f"encoder{stages + 1}.layer.conv2.conv.weight")),
        "strides": [[1] * dims, *(list(stride) for stride in strides)],
        **({"mixer": "segmamba_v2"} if is_v2 else {**_layers_of_v1(weights), "mixer": "segmamba"}),
    }
    return "segmamba_v2" if is_v2 else "segmamba", arch_kwargs, weights


def _layers_of_v1(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """How many routes they have. The third one steps through as many slices as the authors wrote down."""
    has = {suffix: any(name.endswith(f".mamba.A{suffix}_log") for name in weights) for suffix in ("_b", "_s")}
    if has["_s"]:
        return {"directions": 3, "slices": list(PUBLISHED_SLICES)}
    return {"directions": 2 if has["_b"] else 1}


def _foreign(weights: Mapping[str, Tensor]) -> ModelError:
    names = ", ".join(list(weights)[:3]) or "none"
    return ModelError(
        f"these are no weights of SegMamba: they lack {FIRST_CONV}; the first names are {names}",
        how=["give the state_dict itself, or a mapping with it under 'module'"],
        code="bad-weights",
    )

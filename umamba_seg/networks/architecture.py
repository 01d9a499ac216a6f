"""The `architecture` block by which nnU-Net plans name one of our networks."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from umamba_seg.networks.registry import NetworkRecord


def architecture(
    network: NetworkRecord, like: Mapping[str, Any], patch_size: Sequence[int], *, mixer: str = "mamba"
) -> dict[str, Any]:
    """A block for `network` with the stages, features, strides and kernels of another block."""
    kwargs = deepcopy(dict(like["arch_kwargs"]))
    if network.needs_patch_size:
        kwargs["patch_size"] = [int(size) for size in patch_size]
    return {
        "network_class_name": network.class_path,
        "arch_kwargs": {**kwargs, "mixer": mixer},
        "_kw_requires_import": list(like["_kw_requires_import"]),
    }


def with_mixer(block: Mapping[str, Any], mixer: str) -> dict[str, Any]:
    """The same block with another mixer in the network's slots."""
    return {**block, "arch_kwargs": {**block["arch_kwargs"], "mixer": mixer}}

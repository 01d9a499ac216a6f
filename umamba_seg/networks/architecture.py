"""The `architecture` block by which nnU-Net plans name one of our networks."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any

from umamba_seg.networks.registry import NetworkRecord


def architecture(
    network: NetworkRecord,
    like: Mapping[str, Any],
    patch_size: Sequence[int],
    *,
    mixer: str | None = None,
    spacing: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A block for `network` with the stages, features, strides and kernels of another block.

    Args:
        network: What the block is to name.
        like: The other block, of a plan whose configuration has this patch size and spacing.
        patch_size: Voxels of a patch.
        mixer: What fills the slots; None is the mixer of the paper.
        spacing: Edges of a voxel in mm; None leaves it out.
    """
    kwargs = _read_plan(network, like["arch_kwargs"], patch_size)
    if network.needs_patch_size:
        kwargs["patch_size"] = [int(size) for size in patch_size]
    if spacing is not None:
        kwargs["spacing"] = [float(mm) for mm in spacing]
    return {
        "network_class_name": network.class_path,
        "arch_kwargs": {**kwargs, **network.fixed, "mixer": mixer or network.mixer},
        "_kw_requires_import": [name for name in like["_kw_requires_import"] if name in kwargs],
    }


def with_mixer(block: Mapping[str, Any], mixer: str) -> dict[str, Any]:
    """The same block with another mixer in the network's slots."""
    return {**block, "arch_kwargs": {**block["arch_kwargs"], "mixer": mixer}}


def _read_plan(network: NetworkRecord, plan_kwargs: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    if network.arch_kwargs is None:
        return deepcopy(dict(plan_kwargs))
    module, _, function = network.arch_kwargs.partition(":")
    kwargs: dict[str, Any] = getattr(import_module(module), function)(plan_kwargs, patch_size)
    return kwargs

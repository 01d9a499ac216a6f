"""LightM-UNet's keyword arguments from a plan of nnU-Net."""

from collections.abc import Mapping, Sequence
from typing import Any

from umamba_seg.networks.levels import strides_for

BLOCKS_DOWN, BLOCKS_UP = (1, 2, 2, 4), (1, 1, 1)


def arch_kwargs_from(plan_kwargs: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    """The arguments of `LightMUNet` for the patch of a plan; what does not apply is left out.

    Four levels and blocks as published. Its channels start as those of the plan; both start with 32 unless told
    otherwise. Strides: see `strides_for`.

    Args:
        plan_kwargs: `arch_kwargs` of the plan.
        patch_size: Its patch.
    """
    return {
        "dims": len(patch_size),
        "init_filters": int(plan_kwargs["features_per_stage"][0]),
        "blocks_down": list(BLOCKS_DOWN),
        "blocks_up": list(BLOCKS_UP),
        "strides": strides_for(plan_kwargs, patch_size, len(BLOCKS_DOWN)),
    }

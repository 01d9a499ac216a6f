"""SegMamba's keyword arguments from a plan of nnU-Net."""

from collections.abc import Mapping, Sequence
from typing import Any

from umamba_seg.networks.levels import strides_for

STAGES = 4


def arch_kwargs_from(plan_kwargs: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    """The arguments of `SegMamba` and `SegMambaV2` for the patch of a plan; what does not apply is left out.

    Four stages of two layers as published, of channels 48, 96, 192, 384 and 768 where the plan starts with nnU-Net's
    32, otherwise as many times fewer or more. Strides: see `strides_for`.

    Args:
        plan_kwargs: `arch_kwargs` of the plan.
        patch_size: Its patch.
    """
    base = 3 * int(plan_kwargs["features_per_stage"][0]) // 2
    return {
        "dims": len(patch_size),
        "depths": [2] * STAGES,
        "features": [base * 2**i for i in range(STAGES)],
        "hidden": base * 2**STAGES,
        "strides": strides_for(plan_kwargs, patch_size, STAGES + 1),
    }

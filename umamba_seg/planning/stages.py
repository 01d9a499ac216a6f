"""The stages of a U-Net for a patch, by nnU-Net's rules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

MIN_EDGE = 4
MOST_FEATURES = {2: 512, 3: 320}
BLOCKS = 2
_NO_LIMIT = 999999  # upstream's word for "pool as often as the edge length allows"


def fitting_patch(spacing: Sequence[float] | np.ndarray, patch: Sequence[int]) -> tuple[list[int], list[int]]:
    """The next patch that the stages for `patch` divide, and what each of its axes is a multiple of."""
    *_, fitting, divisors = get_pool_and_conv_props(spacing, patch, MIN_EDGE, _NO_LIMIT)
    return [int(size) for size in fitting], [int(step) for step in divisors]


def stages_for(spacing: Sequence[float] | np.ndarray, patch: Sequence[int], features: int = 32) -> dict[str, Any]:
    """The keyword arguments that depend on the patch, as nnU-Net's default planner chooses them.

    Args:
        spacing: Edges of a voxel in mm.
        patch: A patch that fits, see `fitting_patch`.
        features: Channels of the first stage, doubled with every further one.
    """
    _, strides, kernels, *_ = get_pool_and_conv_props(spacing, patch, MIN_EDGE, _NO_LIMIT)
    n = len(strides)
    return {
        "n_stages": n,
        "features_per_stage": [min(MOST_FEATURES[len(patch)], features * 2**stage) for stage in range(n)],
        "kernel_sizes": kernels,
        "strides": strides,
        "n_conv_per_stage": [BLOCKS] * n,
        "n_conv_per_stage_decoder": [BLOCKS] * (n - 1),
    }

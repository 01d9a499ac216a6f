"""The levels of U-Nets that are published with a stride of 2 on every axis: full resolution first, as nnU-Net has it.

nnU-Net reads `strides` from the arguments of a network to make its targets, so the plan of every network has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from umamba_seg.errors import UsageError
from umamba_seg.networks.topology import Topology

Strides = Sequence[int | Sequence[int]]


def read_levels(
    dims: int,
    features: Sequence[int],
    strides: Strides | None,
    *,
    encoder_blocks: int | Sequence[int] = 1,
    decoder_blocks: int | Sequence[int] = 1,
) -> Topology:
    """The levels of a network over `dims` axes with so many features on each; None for strides is 2 everywhere.

    Raises:
        UsageError: The arguments contradict each other, or the first stride is not 1.
    """
    if dims not in (2, 3):
        raise UsageError(f"dims must be 2 or 3, got {dims!r}", code="bad-plan")
    n = len(features)
    levels = Topology.from_plan(
        n,
        dims,
        features_per_stage=features,
        kernel_sizes=3,
        strides=[1] + [2] * (n - 1) if strides is None else strides,
        encoder_blocks=encoder_blocks,
        decoder_blocks=decoder_blocks,
    )
    if set(levels.strides[0]) != {1}:
        first = list(levels.strides[0])
        raise UsageError(f"strides must start with full resolution, {[1] * dims}, got {first}", code="bad-plan")
    return levels


def strides_for(plan_kwargs: Mapping[str, Any], patch_size: Sequence[int], n_levels: int) -> list[list[int]]:
    """The strides of a network with so many levels for patches of this size.

    They are 2 on every axis, as published, where this cuts no voxel off and leaves more than one. Otherwise they are
    the first strides of the plan, which are made for its patch and for voxels that are no cubes.
    """
    dims, steps = len(patch_size), n_levels - 1
    first = [1] * dims
    if all(n % 2**steps == 0 for n in patch_size) and any(n > 2**steps for n in patch_size):
        return [first, *([2] * dims for _ in range(steps))]
    planned = [[int(step) for step in stride] for stride in plan_kwargs["strides"][1:n_levels]]
    return [first, *planned, *([1] * dims for _ in range(steps - len(planned)))]

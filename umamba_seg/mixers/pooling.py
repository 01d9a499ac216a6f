"""A coarse copy of a channels-last map, and back."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


def pooled(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Means over boxes of `factors` voxels (b, *s, c); boxes that the map cuts off have fewer."""
    if all(factor == 1 for factor in factors):
        return x
    kernel = tuple(factors)
    return POOLS[len(kernel)](x.movedim(-1, 1), kernel, kernel, ceil_mode=True).movedim(1, -1)


def spread(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (b, *s, c) to `size`."""
    if tuple(x.shape[1:-1]) == tuple(size):
        return x
    y = F.interpolate(x.movedim(-1, 1), tuple(size), mode=INTERPOLATIONS[len(size)], align_corners=False)
    return y.movedim(1, -1)

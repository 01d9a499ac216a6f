"""The depthwise convolution over the true neighbourhood of each voxel, channels last."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.errors import UsageError

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class DepthwiseConv(nn.Module):
    """Convolves each channel by itself; the map keeps its size.

    No `nn.Conv3d`: networks give those the initial values of their own convolutions.

    Args:
        channels: c, each with a kernel of its own.
        kernel_size: Odd, one number per spatial axis.
    """

    def __init__(self, channels: int, kernel_size: Sequence[int]) -> None:
        super().__init__()
        bound = math.prod(kernel_size) ** -0.5  # torch's for any convolution
        self.weight = nn.Parameter(torch.empty(channels, 1, *kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        self.padding = tuple(width // 2 for width in kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (b, *s, c)."""
        convolve = CONVOLUTIONS[len(self.padding)]
        y = convolve(x.movedim(-1, 1), self.weight, self.bias, padding=self.padding, groups=len(self.weight))
        return y.movedim(1, -1)


def kernel_of(kernel_size: Sequence[int] | None, spatial_dims: int, *, width: int = 3) -> tuple[int, ...]:
    """A kernel for so many axes; `width` on each unless given.

    Raises:
        UsageError: It has another number of axes, or an even width.
    """
    kernel = (width,) * spatial_dims if kernel_size is None else tuple(int(n) for n in kernel_size)
    if len(kernel) != spatial_dims or any(n < 1 or n % 2 == 0 for n in kernel):
        raise UsageError(
            f"kernel_size must have an odd number for each of {spatial_dims} axes, got {kernel_size!r}",
            code="bad-mixer-option",
        )
    return kernel

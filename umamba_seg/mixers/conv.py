"""The plain control: a convolution where a mixer could be, dense or of as many parameters as the published layer.

    y = conv(x),   or   y = point(leaky_relu(conv(x)))   through h channels

Shapes: b batch, s spatial axes, c channels, h channels between the two convolutions.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.mixers.depthwise import kernel_of
from umamba_seg.mixers.gated_conv import check_match
from umamba_seg.mixers.mixer import Mixer

CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class ConvMixer(Mixer):
    """Lets each voxel see its neighbours. It starts as the network starts its own convolutions.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        match: "parameters" takes as many as `parameters` says; "width" is one dense convolution.
        parameters: How many the layer has that this one stands in for. Through h channels it comes within half a
            kernel of c channels of that. None leaves the convolution dense.
        kernel_size: Kernel, one number per axis; 3 on each unless given.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        match: str = "parameters",
        parameters: int | None = None,
        kernel_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_match(match)
        kernel = kernel_of(kernel_size, spatial_dims)
        padding = tuple(width // 2 for width in kernel)
        make = CONVOLUTIONS[spatial_dims]
        self.channels, self.between = channels, 0
        if match == "parameters" and parameters is not None:
            of_one = channels * (math.prod(kernel) + 1) + 1  # of the h channels: kernels in and out, bias
            self.between = max(1, round((parameters - channels) / of_one))
        self.conv = make(channels, self.between or channels, kernel, padding=padding)
        self.point = make(self.between, channels, 1) if self.between else None

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c); the result has the dtype of `x`."""
        y = self.conv(x.to(self.conv.weight.dtype).movedim(-1, 1))
        if self.point is not None:
            y = self.point(F.leaky_relu(y, 0.01, inplace=True))  # nnU-Net's
        return y.movedim(1, -1).to(x.dtype)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass: the input, and what is between the two convolutions."""
        return tokens * (self.channels + self.between)

"""The layer of MambaOut (Yu and Wang 2024, arXiv:2405.07992): Mamba's block without its scan.

    g, i, v = fc1 x;   y = fc2(gelu(g) * [i, conv(v)])

Shapes: b batch, s spatial axes, c channels, h hidden channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.mixers.depthwise import DepthwiseConv
from umamba_seg.mixers.large_kernel import widened
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.precision import outside_autocast


class MambaOutMixer(Mixer):
    """Lets each voxel see some voxels around it, on c of its h = 8/3 c hidden channels.

    It computes in the dtype of its parameters, under autocast too: no norm stands between its product and its result.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        width: Of the kernel, on every axis that the kernel of this stage spans.
        kernel_size: Kernel of this stage; an axis that has 1 there, across thick slices, has 1 here.
    """

    def __init__(
        self, channels: int, *, spatial_dims: int, width: int = 7, kernel_size: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        hidden = 8 * channels // 3
        self.channels, self.hidden = channels, hidden
        self.fc1 = nn.Linear(channels, 2 * hidden)
        self.conv = DepthwiseConv(channels, widened(kernel_size, spatial_dims, width))
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c); the result has the dtype of `x`."""
        c, h = self.channels, self.hidden
        with outside_autocast(x.device.type):
            gate, still, v = self.fc1(x.to(self.fc1.weight.dtype)).split((h, h - c, c), dim=-1)
            return self.fc2(F.gelu(gate) * torch.cat([still, self.conv(v)], dim=-1)).to(x.dtype)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass."""
        return tokens * (self.channels + 5 * self.hidden)  # input; fc1; gate, what it multiplies, their product

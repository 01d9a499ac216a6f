"""A depthwise convolution of a large kernel and a perceptron per voxel, as in ConvNeXt and MedNeXt.

    y = fc2(gelu(fc1(norm(conv(x)))))

Shapes: b batch, s spatial axes, c channels.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.mixers.depthwise import DepthwiseConv, kernel_of
from umamba_seg.mixers.mixer import Mixer


class LargeKernelMixer(Mixer):
    """Lets each voxel see some voxels around it. Convolution and perceptron follow autocast, behind the norm.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        width: Of the kernel, on every axis that the kernel of this stage spans.
        expand: Channels within the perceptron / c.
        kernel_size: Kernel of this stage; an axis that has 1 there, across thick slices, has 1 here.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        width: int = 7,
        expand: int = 4,
        kernel_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.conv = DepthwiseConv(channels, widened(kernel_size, spatial_dims, width))
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, expand * channels)
        self.fc2 = nn.Linear(expand * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c); the result has the dtype of `x`."""
        y = self.norm(self.conv(x.to(self.conv.weight.dtype)))
        return self.fc2(F.gelu(self.fc1(y))).to(x.dtype)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass."""
        narrow, wide = self.fc1.in_features, self.fc1.out_features
        return tokens * (3 * narrow + 2 * wide)  # input, convolution, norm; perceptron ahead of gelu and behind it


def widened(kernel_size: Sequence[int] | None, spatial_dims: int, width: int) -> tuple[int, ...]:
    """A kernel `width` wide on the axes that another one spans."""
    spanned = kernel_of(kernel_size, spatial_dims, width=width)
    return kernel_of([width if n > 1 else 1 for n in spanned], spatial_dims)

"""The blocks of SegMamba, under their published names. Its instance norms have no parameters.

GSC       x + f4(f2(f1(x)) + f3(x)),   each f a convolution, a norm and a ReLU
MLP       fc2(gelu(fc1(norm(x)))), beside the trunk
large kernel   se(deep(x) + short(x) + x)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.networks.blocks import ConvNorm
from umamba_seg.networks.layers import Layers
from umamba_seg.networks.named import named
from umamba_seg.networks.precision import as_wide, narrowed


def layers_of(dims: int, nonlin: type[nn.Module], *, conv_bias: bool) -> Layers:
    """Convolutions with instance norms that have no parameters."""
    return Layers(
        conv_op=nn.Conv2d if dims == 2 else nn.Conv3d,
        conv_bias=conv_bias,
        norm_op=nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={},
        dropout_op=None,
        dropout_op_kwargs={},
        nonlin=nonlin,
        nonlin_kwargs={"inplace": True},
    )


class ResBlock(nn.Module):
    """Two 3×3 convolutions beside the input, which is projected where channels change (MONAI's `UnetResBlock`)."""

    def __init__(self, layers: Layers, inputs: int, outputs: int) -> None:
        super().__init__()
        kernel = (3,) * layers.dims
        self.conv1 = ConvNorm(layers, layers.conv(inputs, outputs, kernel), outputs, is_last=False)
        self.conv2 = ConvNorm(layers, layers.conv(outputs, outputs, kernel), outputs, is_last=True)
        projection = ConvNorm(layers, layers.pointwise(inputs, outputs), outputs, is_last=True)
        self.conv3 = projection if inputs != outputs else None
        self.nonlin = layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same size."""
        skip = x if self.conv3 is None else self.conv3(x)
        return self.nonlin(self.conv2(self.conv1(x)) + skip)


class UpBlock(nn.Module):
    """Samples up by a transposed convolution, appends the skip and reduces both (MONAI's `UnetrUpBlock`)."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.transp_conv = named(conv=layers.transposed_conv(inputs, outputs, stride))
        self.conv_block = ResBlock(layers, 2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """A map of the size of the skip."""
        return self.conv_block(torch.cat((self.transp_conv(x), skip), dim=1))


class GatedSpatialConv(nn.Module):
    """SegMamba's GSC. The paper draws a product; the published network, and this one, add the two paths."""

    def __init__(self, layers: Layers, channels: int) -> None:
        super().__init__()
        kernel = (3,) * layers.dims
        self.proj = layers.conv(channels, channels, kernel)
        self.proj2 = layers.conv(channels, channels, kernel)
        self.proj3 = layers.pointwise(channels, channels)
        self.proj4 = layers.pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the formula on top."""
        near = _normed(self.proj2(_normed(self.proj(x))))
        return x + _normed(self.proj4(near + _normed(self.proj3(x))))


class SkipMlp(nn.Module):
    """Two pointwise convolutions between trunk and skip. The norm ahead of them brings wide maps down."""

    def __init__(self, layers: Layers, channels: int) -> None:
        super().__init__()
        self.fc1 = layers.pointwise(channels, 2 * channels)
        self.fc2 = layers.pointwise(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the formula on top; the input is not added."""
        return self.fc2(F.gelu(self.fc1(F.instance_norm(x))))


class WideConv(nn.Sequential):
    """A convolution that may read a wide map; what it writes is then wide too."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, in float32 where `x` is wide."""
        with as_wide(x):
            return super().forward(x)


class ConvBlock(nn.Module):
    """A convolution, a norm and a ReLU."""

    def __init__(self, layers: Layers, channels: int, width: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (width // 2)
        conv = layers.conv_op(channels, channels, width, padding=padding, dilation=dilation, bias=layers.conv_bias)
        self.block = nn.Sequential(conv, layers.norm(channels), layers.nonlinearity())

    def forward(self, x: Tensor) -> Tensor:
        """In float32 where `x` is wide; what it writes is not, for the norm has brought it down."""
        with as_wide(x):
            y = self.block(x)
        return narrowed(y)


class SqueezeExcite(nn.Module):
    """Weighs the channels by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = max(channels // 8, 1)
        self.fc = nn.Sequential(
            nn.Linear(channels, between), nn.ReLU(inplace=True), nn.Linear(between, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same size, in float32 where `x` is wide."""
        with as_wide(x):
            weights = self.fc(x.mean(dim=tuple(range(2, x.dim()))))  # (b, c)
            return x * weights.view(*weights.shape, *(1 for _ in x.shape[2:]))


class LargeKernelConv(nn.Module):
    """The body of SegMamba-V2: a deep path of kernels 5, 3 and dilated 3, a short one of 3 and 1, all of them dense."""

    def __init__(self, layers: Layers, channels: int) -> None:
        super().__init__()
        self.deep_path = nn.Sequential(
            ConvBlock(layers, channels, 5), ConvBlock(layers, channels, 3), ConvBlock(layers, channels, 3, dilation=2)
        )
        self.shortcut_path = nn.Sequential(ConvBlock(layers, channels, 3), ConvBlock(layers, channels, 1))
        self.se = SqueezeExcite(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the formula on top; a wide map stays wide."""
        return self.se(self.deep_path(x) + self.shortcut_path(x) + x)


def _normed(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x), inplace=True)

"""The residual blocks of U-Mamba, and how it samples up."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.networks.layers import Layers
from umamba_seg.networks.precision import as_wide, narrowed, saturated


class ProjectedBlock(nn.Module):
    """Two convolutions beside a 1×1 convolution that is always there and has no norm; the first of every stage."""

    def __init__(
        self, layers: Layers, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv(inputs, outputs, kernel, stride)
        self.norm1 = layers.norm(outputs)
        self.conv2 = layers.conv(outputs, outputs, kernel)
        self.norm2 = layers.norm(outputs)
        self.conv3 = layers.pointwise(inputs, outputs, stride)
        self.dropout = layers.dropout()
        self.nonlin = layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """Both paths see `x` and a stride, where there is one."""
        with as_wide(x):
            y = self.norm1(self.dropout(self.conv1(x)))
            skip = saturated(self.conv3(x))
        y = self.norm2(self.conv2(self.nonlin(y)))
        return self.nonlin(narrowed(y + skip))


class ConvNorm(nn.Module):
    """A convolution, perhaps dropout, a norm, and perhaps a non-linearity."""

    def __init__(self, layers: Layers, conv: nn.Module, channels: int, *, is_last: bool) -> None:
        super().__init__()
        self.conv = conv
        self.dropout = nn.Identity() if is_last else layers.dropout()
        self.norm = layers.norm(channels)
        self.nonlin = nn.Identity() if is_last else layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """In the order of the class docstring."""
        return self.nonlin(self.norm(self.dropout(self.conv(x))))


class PooledBlock(nn.Module):
    """nnU-Net's residual block: two convolutions beside the input, pooled by a stride and projected to other channels.

    Where neither stride nor channels change, the input itself is added.
    """

    def __init__(
        self, layers: Layers, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int
    ) -> None:
        super().__init__()
        steps = (stride,) * layers.dims if isinstance(stride, int) else tuple(stride)
        self.conv1 = ConvNorm(layers, layers.conv(inputs, outputs, kernel, steps), outputs, is_last=False)
        self.conv2 = ConvNorm(layers, layers.conv(outputs, outputs, kernel), outputs, is_last=True)
        skip = [layers.average_pool(steps)] if any(step != 1 for step in steps) else []
        if inputs != outputs:
            skip.append(ConvNorm(layers, layers.pointwise(inputs, outputs, has_bias=False), outputs, is_last=True))
        self.skip = nn.Sequential(*skip)
        self.nonlin = layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """Both paths see `x` and a stride, where there is one."""
        with as_wide(x):
            y, skip = self.conv1(x), self.skip(x)
        return self.nonlin(narrowed(self.conv2(y) + skip))


class ResidualStage(nn.Sequential):
    """One projected block, which may change channels and size, and blocks with an identity skip behind it."""

    def __init__(
        self,
        layers: Layers,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int,
        n_blocks: int,
    ) -> None:
        rest = [PooledBlock(layers, outputs, outputs, kernel, 1) for _ in range(n_blocks - 1)]
        super().__init__(ProjectedBlock(layers, inputs, outputs, kernel, stride), *rest)


class PooledStage(nn.Module):
    """Pooled blocks, of which the first may change channels and size."""

    def __init__(
        self,
        layers: Layers,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int,
        n_blocks: int,
    ) -> None:
        super().__init__()
        rest = [PooledBlock(layers, outputs, outputs, kernel, 1) for _ in range(n_blocks - 1)]
        self.blocks = nn.Sequential(PooledBlock(layers, inputs, outputs, kernel, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """One block after the other."""
        return self.blocks(x)


class ConvStem(nn.Module):
    """One convolution of the image with norm and non-linearity, however many blocks the first stage has."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, kernel: Sequence[int], n_blocks: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvNorm(layers, layers.conv(inputs, outputs, kernel), outputs, is_last=False))

    def forward(self, x: Tensor) -> Tensor:
        """Same size out as in."""
        return self.convs(x)


def residual_stem(layers: Layers, inputs: int, outputs: int, kernel: Sequence[int], n_blocks: int) -> nn.Module:
    """A stem of as many residual blocks as the first stage has."""
    return ResidualStage(layers, inputs, outputs, kernel, 1, n_blocks)


class NearestUpsample(nn.Module):
    """Repeats every voxel `stride` times along each axis and changes the channels by a 1×1 convolution."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.conv = layers.pointwise(inputs, outputs)
        self.scale = tuple(float(step) for step in stride)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then repeat; published the other way round, the same numbers for prod(stride) times the work."""
        return F.interpolate(self.conv(x), scale_factor=self.scale, mode="nearest")


def transposed_upsample(layers: Layers, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
    """Samples up by a transposed convolution."""
    return layers.transposed_conv(inputs, outputs, stride)


def start_like_he(module: nn.Module) -> None:
    """nnU-Net's initial values: He's for leaky ReLU of slope 0.01, in convolutions over images only."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def start_like_he_with_closed_blocks(module: nn.Module) -> None:
    """The same, and blocks start as the identity: the last norm of their convolutions writes zeros."""
    start_like_he(module)
    if isinstance(module, PooledBlock):
        for parameter in module.conv2.norm.parameters():
            nn.init.zeros_(parameter)


def channels_written(part: nn.Module) -> int:
    """Channels that the convolutions over images in `part` write, all of them together."""
    convs = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return sum(module.out_channels for module in part.modules() if isinstance(module, convs))

"""The residual blocks of U-Mamba, and how it samples up."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.networks.layers import Layers
from umamba_seg.networks.precision import as_wide, narrowed


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
            skip = self.conv3(x)
        y = self.norm2(self.conv2(self.nonlin(y)))
        return self.nonlin(narrowed(y + skip))


class ConvNorm(nn.Module):
    """A convolution of stride 1, perhaps dropout, a norm, and perhaps a non-linearity."""

    def __init__(self, layers: Layers, channels: int, kernel: Sequence[int], *, is_last: bool) -> None:
        super().__init__()
        self.conv = layers.conv(channels, channels, kernel)
        self.dropout = nn.Identity() if is_last else layers.dropout()
        self.norm = layers.norm(channels)
        self.nonlin = nn.Identity() if is_last else layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """In the order of the class docstring."""
        return self.nonlin(self.norm(self.dropout(self.conv(x))))


class IdentityBlock(nn.Module):
    """Two convolutions beside the unchanged input: nnU-Net's residual block without stride or change of channels."""

    def __init__(self, layers: Layers, channels: int, kernel: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = ConvNorm(layers, channels, kernel, is_last=False)
        self.conv2 = ConvNorm(layers, channels, kernel, is_last=True)
        self.nonlin = layers.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out as in."""
        return self.nonlin(self.conv2(self.conv1(x)) + x)


class ResidualStage(nn.Sequential):
    """One projected block, which may change channels and size, and identity blocks behind it."""

    def __init__(
        self,
        layers: Layers,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int,
        n_blocks: int,
    ) -> None:
        rest = [IdentityBlock(layers, outputs, kernel) for _ in range(n_blocks - 1)]
        super().__init__(ProjectedBlock(layers, inputs, outputs, kernel, stride), *rest)


class NearestUpsample(nn.Module):
    """Repeats every voxel `stride` times along each axis and changes the channels by a 1×1 convolution."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.conv = layers.pointwise(inputs, outputs)
        self.scale = tuple(float(step) for step in stride)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then repeat; published the other way round, the same numbers for prod(stride) times the work."""
        with as_wide(x):
            return F.interpolate(self.conv(x), scale_factor=self.scale, mode="nearest")


def start_like_he(module: nn.Module) -> None:
    """nnU-Net's initial values: He's for leaky ReLU of slope 0.01, in convolutions over images only."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=1e-2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def channels_written(part: nn.Module) -> int:
    """Channels that the convolutions over images in `part` write, all of them together."""
    convs = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return sum(module.out_channels for module in part.modules() if isinstance(module, convs))

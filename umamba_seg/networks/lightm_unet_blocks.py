"""The blocks of LightM-UNet, under their published names.

    RVM         proj(norm(mixer(norm(t)) + scale t)) for the tokens t of a map, twice the same norm
    ResMamba    x + RVM(relu(norm(RVM(relu(norm(x))))))
    ResUp       relu(norm(pair(relu(norm(x))) + scale x)),   pair a depthwise and a pointwise convolution

Shapes: b batch, c channels, d channels written, s spatial axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.precision import outside_autocast
from umamba_seg.networks.mixer_maker import MixerMaker
from umamba_seg.networks.named import named

GROUPS = 8
MODES = {2: "bilinear", 3: "trilinear"}


class RvmLayer(nn.Module):
    """A slot with more around it: the tokens are added scaled, and normed and projected with what the mixer wrote.

    Norms, sum and projection have the precision of the parameters, under autocast too. Without a mixer the rest stays.

    Args:
        mixers: What fills it.
        channels: c.
        outputs: d.
        scale: Voxels of the input per voxel of the map, one number per axis.
    """

    def __init__(self, mixers: MixerMaker, channels: int, outputs: int, scale: Sequence[int]) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm = nn.LayerNorm(channels)
        self.name = mixers.name
        mixer = mixers.mixer_for(channels, scale)
        if mixer is not None:
            self.add_module(self.name, mixer)
        self.proj = nn.Linear(channels, outputs)

    @property
    def mixer(self) -> Mixer | None:
        """What fills the slot."""
        found = self._modules.get(self.name)
        return found if isinstance(found, Mixer) else None

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map (b, c, *s) into one of d channels."""
        tokens = x.to(self.norm.weight.dtype).movedim(1, -1)  # (b, *s, c)
        y = self.skip_scale * tokens
        if self.mixer is not None:
            y = self.mixer(self.norm(tokens)) + y
        with outside_autocast(x.device.type):
            y = self.proj(self.norm(y)).movedim(-1, 1)
        return y.contiguous() if x.is_contiguous() else y

    def elements(self, voxels: int) -> int:
        """Numbers per image that a training step keeps in the mixer, and that the projection writes."""
        kept = 0 if self.mixer is None else self.mixer.saved_elements(voxels)
        return kept + voxels * self.proj.out_features


class ResMambaBlock(nn.Module):
    """Two RVM layers, each behind a norm and a ReLU, beside the input."""

    def __init__(self, mixers: MixerMaker, channels: int, scale: Sequence[int]) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = RvmLayer(mixers, channels, channels, scale)
        self.conv2 = RvmLayer(mixers, channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + x


class ResUpBlock(nn.Module):
    """A pair of convolutions beside the scaled input."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv = conv_pair(dims, channels, channels, width=3)

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        y = self.conv(F.relu(self.norm1(x))) + self.skip_scale * x
        return F.relu(self.norm2(y))


class Upsample(nn.Module):
    """Interpolates linearly to `stride` times the voxels."""

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(float(step) for step in stride)

    def forward(self, x: Tensor) -> Tensor:
        """A map of as many channels."""
        return F.interpolate(x, scale_factor=self.scale, mode=MODES[len(self.scale)], align_corners=False)


def conv_pair(dims: int, inputs: int, outputs: int, *, width: int, bias: bool = False) -> nn.Sequential:
    """A depthwise convolution, then a pointwise one with nothing in between."""
    depthwise = conv(dims)(inputs, inputs, width, padding=width // 2, groups=inputs, bias=bias)
    return nn.Sequential(named(conv=depthwise), named(conv=conv(dims)(inputs, outputs, 1, bias=bias)))


def conv(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution over so many axes."""
    return nn.Conv2d if dims == 2 else nn.Conv3d


def max_pool(stride: Sequence[int]) -> nn.Module:
    """The largest of the voxels that become one."""
    return (nn.MaxPool2d if len(stride) == 2 else nn.MaxPool3d)(tuple(stride))

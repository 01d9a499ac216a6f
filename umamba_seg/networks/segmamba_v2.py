"""SegMamba-V2 (Xing et al. 2025, doi 10.1109/TMI.2025.3589797), as its repository has it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from umamba_seg.networks.levels import Strides
from umamba_seg.networks.mixer_maker import MixerMaker
from umamba_seg.networks.placing import read_spacing
from umamba_seg.networks.segmamba_blocks import LargeKernelConv, WideConv, layers_of
from umamba_seg.networks.segmamba_shell import SegMambaShell, Trunk, make_slots, read_topology
from umamba_seg.networks.topology import Topology

FIRST_STAGE_WITH_SLOTS = 2


class SegMambaV2(SegMambaShell):
    """A trunk of large dense convolutions with Mamba layers in its deep stages, inside MONAI's U-Net.

    It is published for three axes and strides of 2 everywhere; all else is ours. None of the arguments is changed.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return a list that holds the logits; there is one resolution. Switched later by
            `decoder.deep_supervision`.
        dims: Spatial axes.
        depths: Convolution blocks of each stage of the trunk, and its Mamba layers from the third stage on.
        features: Channels of each stage.
        hidden: Channels of the deepest map of the U-Net.
        strides: As nnU-Net writes them: full resolution, then one for each stage. None is 2 on every axis.
        mixer: What fills the slots, see `umamba_seg.mixers`; `none` leaves them out, with their norms.
        mixer_options: Settings of the mixer.
        spacing: Edges of a voxel of the input in mm, for mixers that measure distances; None where nobody knows.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        dims: int = 3,
        depths: Sequence[int] = (2, 2, 2, 2),
        features: Sequence[int] = (48, 96, 192, 384),
        hidden: int = 768,
        strides: Strides | None = None,
        mixer: str = "segmamba_v2",
        mixer_options: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        topology = read_topology(dims, depths, features, hidden, strides)
        mixers = MixerMaker(mixer, mixer_options or {}, "segmamba_v2", dims, read_spacing(spacing, dims))
        layers = layers_of(dims, nn.ReLU, conv_bias=True)
        bodies = [
            nn.Sequential(*(LargeKernelConv(layers, channels) for _ in range(depth)))
            for channels, depth in zip(features, depths, strict=True)
        ]
        stages = [
            make_slots(mixers, topology, i, depth if i >= FIRST_STAGE_WITH_SLOTS else 0)
            for i, depth in enumerate(depths)
        ]
        trunk = Trunk(dims, features, _downsampling(topology), bodies, stages)
        super().__init__(
            input_channels, num_classes, deep_supervision, topology=topology, trunk=trunk, trunk_reads_image=False
        )


def _downsampling(topology: Topology) -> list[nn.Module]:
    """A 3×3 convolution for each stage, without a norm: it may read a wide map."""
    layers = layers_of(len(topology.total_stride), nn.ReLU, conv_bias=True)
    features, kernel = topology.features, (3,) * layers.dims
    inputs = (features[0], *features)
    return [
        WideConv(layers.conv(inputs[i], features[i], kernel, stride)) for i, stride in enumerate(topology.strides[1:])
    ]

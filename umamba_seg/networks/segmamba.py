"""SegMamba v1 (Xing et al. 2024, arXiv:2401.13560), as its repository has it since June 2024 unless told otherwise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from umamba_seg.errors import UsageError
from umamba_seg.networks import sizes
from umamba_seg.networks.levels import Strides
from umamba_seg.networks.mixer_maker import MixerMaker
from umamba_seg.networks.placing import read_spacing
from umamba_seg.networks.segmamba_blocks import GatedSpatialConv, layers_of
from umamba_seg.networks.segmamba_shell import SegMambaShell, Trunk, make_slots, read_topology
from umamba_seg.networks.topology import Size, Topology

Slices: TypeAlias = str | Sequence[int]

PUBLISHED_SLICES = (64, 32, 16, 8)  # the depths of its four maps for inputs of depth 128, written down once for all


class SegMamba(SegMambaShell):
    """A trunk of gated convolutions and Mamba layers along three routes, inside MONAI's U-Net.

    It is published for three axes, strides of 2 everywhere and `slices` of 64, 32, 16 and 8; all else is ours. None of
    the arguments is changed.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return a list that holds the logits; there is one resolution. Switched later by
            `decoder.deep_supervision`.
        dims: Spatial axes.
        depths: Mamba layers of each stage of the trunk.
        features: Channels of each stage.
        hidden: Channels of the deepest map of the U-Net.
        strides: As nnU-Net writes them: full resolution, then one for each stage. None is 2 on every axis.
        slices: "depth" lets the third route run along depth. A number for each stage cuts its map into so many chunks
            whatever its depth, as weights of the authors need; see `umamba_seg.mixers`.
        directions: Routes of the Mamba layer: 3 of today, 2 of the first release, 1 of the weights that are published.
        layer_residual: Whether a Mamba layer adds to the map, as since 5 June 2024, or replaces it. Weights do not
            show it. Other mixers always add.
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
        slices: Slices = "depth",
        directions: int = 3,
        layer_residual: bool = True,
        mixer: str = "segmamba",
        mixer_options: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        topology = read_topology(dims, depths, features, hidden, strides)
        mixers = MixerMaker(mixer, mixer_options or {}, "segmamba", dims, read_spacing(spacing, dims))
        counts = _read_slices(slices, len(depths))
        layers = layers_of(dims, nn.ReLU, conv_bias=True)
        is_residual = layer_residual or not mixers.is_published
        stages = [
            make_slots(mixers, topology, i, depth, is_residual=is_residual, slices=count, directions=directions)
            for i, (depth, count) in enumerate(zip(depths, counts, strict=True))
        ]
        trunk = Trunk(
            dims,
            features,
            _downsampling(input_channels, topology),
            [GatedSpatialConv(layers, channels) for channels in features],
            stages,
        )
        super().__init__(
            input_channels, num_classes, deep_supervision, topology=topology, trunk=trunk, trunk_reads_image=True
        )
        self.slices = counts if mixers.is_published and directions == 3 and slices != "depth" else ()

    def check_size(self, size: Sequence[int]) -> None:
        """Accept the sizes of input that this network can take.

        Raises:
            UsageError: An axis is no multiple of its total stride, the deepest map would be a single voxel, or a map
                cannot be cut into its slices.
        """
        super().check_size(size)
        for stage in range(len(self.slices)):
            if not self._can_be_cut(size, stage):
                raise self._uncut(size, stage)

    def _can_be_cut(self, size: Sequence[int], stage: int) -> bool:
        count = self.slices[stage]
        return count is None or self._voxels(size, stage) % count == 0

    def _uncut(self, size: Sequence[int], stage: int) -> UsageError:
        def fits(found: Size) -> bool:
            return all(self._can_be_cut(found, i) for i in range(len(self.slices)))

        near = sizes.nearest(size, self.topology.total_stride, fits)
        return UsageError(
            f"slices={[*self.slices]} cuts the map of every stage into so many equal parts; for an input of "
            f"{sizes.text(size)} stage {stage} has {self._voxels(size, stage)} voxels, no multiple of "
            f"{self.slices[stage]}",
            how=[
                *([f"use {sizes.text(near)}"] if near else []),
                'a network trained with slices="depth" takes any multiple of ' + sizes.text(self.topology.total_stride),
            ],
            code="bad-size",
        )

    def _voxels(self, size: Sequence[int], stage: int) -> int:
        return math.prod(self.topology.map_sizes(size)[stage + 1])


def _downsampling(input_channels: int, topology: Topology) -> list[nn.Module]:
    """A 7×7 convolution of the image, then a norm and a convolution that reads every voxel once for each stage."""
    layers = layers_of(len(topology.total_stride), nn.ReLU, conv_bias=True)
    features, strides = topology.features, topology.strides
    first = layers.conv(input_channels, features[0], (7,) * layers.dims, strides[1])
    rest = [
        nn.Sequential(
            layers.norm(features[i - 1]),
            layers.conv_op(features[i - 1], features[i], strides[i + 1], stride=strides[i + 1]),
        )
        for i in range(1, len(strides) - 1)
    ]
    return [nn.Sequential(first), *rest]


def _read_slices(slices: Slices, n: int) -> tuple[int | None, ...]:
    if slices == "depth":
        return (None,) * n
    if isinstance(slices, str) or len(slices) != n or any(count < 1 for count in slices):
        raise UsageError(f'slices must be "depth" or {n} numbers, one for each stage; got {slices!r}', code="bad-plan")
    return tuple(int(count) for count in slices)

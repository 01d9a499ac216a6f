"""What SegMamba v1 and V2 share: a trunk that halves the map at every stage, and MONAI's U-Net around it.

    skips = trunk(image);   encoder1(image), encoder2(skips[0]), ...;   decoders, each of which reads one of these

Level 0 is full resolution, level i + 1 that of stage i of the trunk. The skip of a stage is lifted to the channels of
the next one. Parameter names are the published ones.
"""

import math
from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from umamba_seg.errors import UsageError
from umamba_seg.networks import sizes
from umamba_seg.networks.blocks import channels_written
from umamba_seg.networks.levels import Strides, read_levels
from umamba_seg.networks.mixer_maker import MixerMaker
from umamba_seg.networks.named import named
from umamba_seg.networks.segmamba_blocks import ResBlock, SkipMlp, UpBlock, layers_of
from umamba_seg.networks.single_resolution import SingleResolution
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.topology import Topology


class Trunk(nn.Module):
    """The stages of the encoder, each of downsampling, convolutions and slots, with an MLP beside the way down.

    Args:
        dims: Spatial axes.
        features: Channels of each stage.
        downsample_layers: What makes the map of each stage from the one before.
        gscs: The convolutions of each stage.
        stages: The slots of each stage, one after the other.
    """

    def __init__(
        self,
        dims: int,
        features: Sequence[int],
        downsample_layers: Sequence[nn.Module],
        gscs: Sequence[nn.Module],
        stages: Sequence[Sequence[MixerSlot]],
    ) -> None:
        super().__init__()
        layers = layers_of(dims, nn.ReLU, conv_bias=True)
        self.downsample_layers = nn.ModuleList(downsample_layers)
        self.stages = nn.ModuleList(nn.Sequential(*slots) for slots in stages)
        self.gscs = nn.ModuleList(gscs)
        self.mlps = nn.ModuleList(SkipMlp(layers, channels) for channels in features)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The skip of every stage, fine to coarse."""
        skips = []
        for downsample, gsc, stage, mlp in zip(self.downsample_layers, self.gscs, self.stages, self.mlps, strict=True):
            x = stage(gsc(downsample(x)))
            skips.append(mlp(x))
        return skips

    def slots(self) -> Iterator[tuple[int, MixerSlot]]:
        """Every slot, after the index of its stage."""
        for i, stage in enumerate(self.stages):
            for slot in cast(nn.Sequential, stage):
                yield i, cast(MixerSlot, slot)


class SegMambaShell(SingleResolution):
    """The U-Net around a trunk.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return a list that holds the logits; there is one resolution. Switched later by
            `decoder.deep_supervision`.
        topology: Channels of encoder 1, 2, ... and strides between their levels.
        trunk: The way down.
        trunk_reads_image: The trunk starts from the image instead of from what the first encoder writes.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool,
        *,
        topology: Topology,
        trunk: Trunk,
        trunk_reads_image: bool,
    ) -> None:
        super().__init__(deep_supervision)
        self.topology, self.trunk_reads_image = topology, trunk_reads_image
        features, dims = topology.features, len(topology.total_stride)
        layers = layers_of(dims, nn.LeakyReLU, conv_bias=False)
        self.vit = trunk
        for level in range(topology.n_stages):
            inputs = features[level - 1] if level > 1 else (input_channels, features[0])[level]
            self.add_module(f"encoder{level + 1}", named(layer=ResBlock(layers, inputs, features[level])))
        for level in topology.decoder_order:
            up = UpBlock(layers, features[level + 1], features[level], topology.strides[level + 1])
            self.add_module(f"decoder{level + 2}", up)
        self.decoder1 = named(layer=ResBlock(layers, features[0], features[0]))
        self.out = named(conv=named(conv=layers.head(features[0], num_classes)))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of full resolution (b, c, *s); with deep supervision in a list of one."""
        self.check_size(x.shape[2:])
        first = self._encoder(0)(x)
        skips = self.vit(x if self.trunk_reads_image else first)
        maps = [first, *(self._encoder(level)(skip) for level, skip in enumerate(skips, start=1))]
        x = maps[-1]
        for level in self.topology.decoder_order:
            x = self._decoder(level)(x, maps[level])
        return self._as_asked(self.out(self.decoder1(x)))

    def check_size(self, size: Sequence[int]) -> None:
        """Accept the sizes of input that this network can take.

        Raises:
            UsageError: An axis is no multiple of its total stride, or the deepest map would be a single voxel.
        """
        steps = self.topology.total_stride
        sizes.check_divisible(size, steps)
        if tuple(size) == steps:
            raise UsageError(
                f"an input of {sizes.text(size)} becomes a single voxel, which an instance norm cannot take",
                how=[f"use {sizes.text([*steps[:-1], 2 * steps[-1]])} or larger"],
                code="bad-size",
            )

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """What nnU-Net's planner measures: numbers that convolutions write for one image, and that mixers keep."""
        maps, trunk = self.topology.map_sizes(input_size), self.vit
        voxels = [math.prod(size) for size in maps]
        total = voxels[0] * (channels_written(self.decoder1) + channels_written(self.out))
        total += sum(channels_written(self._encoder(level)) * n for level, n in enumerate(voxels))
        total += sum(channels_written(self._decoder(level)) * voxels[level] for level in self.topology.decoder_order)
        for parts in (trunk.downsample_layers, trunk.gscs, trunk.mlps):
            total += sum(channels_written(part) * n for part, n in zip(parts, voxels[1:], strict=True))
        return total + sum(slot.mixer.saved_elements(voxels[i + 1]) for i, slot in trunk.slots())

    def _encoder(self, level: int) -> nn.Module:
        return self.get_submodule(f"encoder{level + 1}")

    def _decoder(self, level: int) -> nn.Module:
        """What makes the map of this level from the one below."""
        return self.get_submodule(f"decoder{level + 2}")


def read_topology(
    dims: int,
    depths: Sequence[int],
    features: Sequence[int],
    hidden: int,
    strides: Strides | None,
) -> Topology:
    """The levels of the U-Net, of which the trunk has all but the first.

    Raises:
        UsageError: The arguments contradict each other.
    """
    if len(depths) != len(features):
        raise UsageError(f"depths needs {len(features)} entries, as features has, got {len(depths)}", code="bad-plan")
    return read_levels(dims, (*features, hidden), strides)


def make_slots(
    mixers: MixerMaker, topology: Topology, stage: int, count: int, *, is_residual: bool = True, **options: object
) -> list[MixerSlot]:
    """The slots of one stage of the trunk, one after the other; none without a mixer.

    Args:
        mixers: What fills them.
        topology: See `read_topology`.
        stage: Index of the stage.
        count: How many.
        is_residual: See `MixerSlot`.
        options: Settings of the published mixer in this stage.
    """
    channels, scale = topology.features[stage], topology.scales[stage + 1]
    made = [mixers.mixer_for(channels, scale, **options) for _ in range(count)]
    return [
        MixerSlot(mixer, mixers.name, channels, is_channel_wise=False, is_residual=is_residual)
        for mixer in made
        if mixer is not None
    ]

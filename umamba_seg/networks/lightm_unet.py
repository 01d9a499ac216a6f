"""LightM-UNet (Liao et al. 2024, arXiv:2403.05246), as its repository has it since 29 March 2024.

MONAI's SegResNet with Mamba layers in the place of most convolutions. Its parameters are about 5 million, not the one
million of its paper. Parameter names are the published ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from umamba_seg.errors import UsageError
from umamba_seg.networks import sizes
from umamba_seg.networks.blocks import channels_written
from umamba_seg.networks.levels import Strides, read_levels
from umamba_seg.networks.lightm_unet_blocks import (
    GROUPS,
    ResMambaBlock,
    ResUpBlock,
    RvmLayer,
    Upsample,
    conv,
    conv_pair,
    max_pool,
)
from umamba_seg.networks.mixer_maker import MixerMaker
from umamba_seg.networks.named import named
from umamba_seg.networks.placing import read_spacing
from umamba_seg.networks.single_resolution import SingleResolution
from umamba_seg.networks.topology import Topology


class LightMUNet(SingleResolution):
    """A narrow U-Net that adds its skips, with a Mamba layer wherever channels mix on the way down.

    It is published with strides of 2 everywhere; those of anisotropic plans are ours. None of the arguments is changed.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return a list that holds the logits; there is one resolution. Switched later by
            `decoder.deep_supervision`.
        dims: Spatial axes.
        init_filters: Channels of full resolution, a multiple of 8; each further level has twice as many.
        blocks_down: Blocks of two Mamba layers on each level of the encoder.
        blocks_up: Blocks on each level of the decoder, deep to shallow.
        strides: As nnU-Net writes them: full resolution, then one for each further level. None is 2 on every axis.
        mixer: What fills the slots, see `umamba_seg.mixers`; `none` leaves the norm, the scaled input and the
            projection around each.
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
        init_filters: int = 32,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
        strides: Strides | None = None,
        mixer: str = "mamba",
        mixer_options: Mapping[str, Any] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(deep_supervision)
        self.topology = plan = _read_topology(dims, init_filters, blocks_down, blocks_up, strides)
        mixers = MixerMaker(mixer, mixer_options or {}, "mamba", dims, read_spacing(spacing, dims))
        features = plan.features
        self.add_module("convInit", conv_pair(dims, input_channels, init_filters, width=3))
        self.down_layers = nn.ModuleList(_down_layer(mixers, plan, level) for level in range(plan.n_stages))
        self.up_layers, self.up_samples = nn.ModuleList(), nn.ModuleList()
        for level, count in zip(plan.decoder_order, plan.decoder_blocks, strict=True):
            reduction = named(conv=conv(dims)(features[level + 1], features[level], 1, bias=False))
            self.up_samples.append(nn.Sequential(reduction, Upsample(plan.strides[level + 1])))
            self.up_layers.append(nn.Sequential(*(ResUpBlock(dims, features[level]) for _ in range(count))))
        head = conv_pair(dims, init_filters, num_classes, width=1, bias=True)
        self.conv_final = nn.Sequential(nn.GroupNorm(GROUPS, init_filters), nn.ReLU(inplace=True), head)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of full resolution (b, c, *s); with deep supervision in a list of one."""
        self.check_size(x.shape[2:])
        x = self.get_submodule("convInit")(x)
        maps = []
        for layer in self.down_layers:
            x = layer(x)
            maps.append(x)
        for level, upsample, layer in zip(self.topology.decoder_order, self.up_samples, self.up_layers, strict=True):
            x = layer(upsample(x) + maps[level])
        return self._as_asked(self.conv_final(x))

    def check_size(self, size: Sequence[int]) -> None:
        """Accept the sizes of input that this network can take.

        Raises:
            UsageError: An axis is no multiple of its total stride.
        """
        sizes.check_divisible(size, self.topology.total_stride)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """What nnU-Net's planner measures: numbers that convolutions write for one image, and that mixers keep.

        The projections of the Mamba layers are pointwise convolutions in other words, and count.
        """
        plan = self.topology
        voxels = [math.prod(size) for size in plan.map_sizes(input_size)]
        total = voxels[0] * (channels_written(self.get_submodule("convInit")) + channels_written(self.conv_final))
        for level, upsample, layer in zip(plan.decoder_order, self.up_samples, self.up_layers, strict=True):
            total += channels_written(upsample) * voxels[level + 1] + channels_written(layer) * voxels[level]
        return total + sum(layer.elements(voxels[level]) for level, layer in self._rvm_layers())

    def _rvm_layers(self) -> Iterator[tuple[int, RvmLayer]]:
        """Every layer that has room for a mixer, after the level of the map that it reads."""
        for level, part in enumerate(self.down_layers):
            entry, *blocks = cast(nn.Sequential, part)
            if level > 0:
                yield level - 1, cast(RvmLayer, cast(nn.Sequential, entry)[0])
            for block in cast(list[ResMambaBlock], blocks):
                yield level, block.conv1
                yield level, block.conv2


def _down_layer(mixers: MixerMaker, plan: Topology, level: int) -> nn.Sequential:
    """What makes the map of a level from the one before, and the blocks of the level."""
    features, scales = plan.features, plan.scales
    entry: nn.Module = nn.Identity()
    if level > 0:
        rvm = RvmLayer(mixers, features[level - 1], features[level], scales[level - 1])
        entry = nn.Sequential(rvm, max_pool(plan.strides[level]))
    blocks = [ResMambaBlock(mixers, features[level], scales[level]) for _ in range(plan.encoder_blocks[level])]
    return nn.Sequential(entry, *blocks)


def _read_topology(
    dims: int,
    init_filters: int,
    blocks_down: Sequence[int],
    blocks_up: Sequence[int],
    strides: Strides | None,
) -> Topology:
    if init_filters < GROUPS or init_filters % GROUPS:
        raise UsageError(f"init_filters must be a multiple of {GROUPS}, got {init_filters}", code="bad-plan")
    n = len(blocks_down)
    if len(blocks_up) != n - 1:
        what = f"blocks_up needs {n - 1} entries, one less than blocks_down, got {len(blocks_up)}"
        raise UsageError(what, code="bad-plan")
    features = [init_filters * 2**level for level in range(n)]
    return read_levels(dims, features, strides, encoder_blocks=blocks_down, decoder_blocks=blocks_up)

"""The rules in which published residual U-Nets with mixers differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from umamba_seg.networks.layers import Layers

# inputs, outputs, kernel, number of blocks in the first stage
StemMaker: TypeAlias = Callable[[Layers, int, int, Sequence[int], int], nn.Module]
# inputs, outputs, kernel, stride, number of blocks; the first block strides and changes the channels
StageMaker: TypeAlias = Callable[[Layers, int, int, Sequence[int], Sequence[int] | int, int], nn.Module]
# inputs, outputs, stride to undo
UpsampleMaker: TypeAlias = Callable[[Layers, int, int, Sequence[int]], nn.Module]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the slots are.

    Args:
        encoder: Behind these encoder stages, ahead of skip and next stage.
        has_bottleneck: Behind the whole encoder, on its deepest map.
        decoder: Behind these decoder stages, counted from the deepest.
        skips: On the skips of these encoder stages, aside from the way down.
    """

    encoder: tuple[int, ...] = ()
    has_bottleneck: bool = False
    decoder: tuple[int, ...] = ()
    skips: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What one family makes of a plan.

    Args:
        stem: Makes what the image meets first.
        stage: Makes the blocks of each stage.
        upsample: Makes the steps from coarse to fine.
        upsample_name: Their name in the decoder, under which weights are published.
        has_plain_bottleneck: Whether norm and mixer of the bottleneck are parts of the network, named `ln` and as the
            mixer is, instead of parts of a `mamba_layer`.
        block_counts: Blocks per stage, given those of the plan and the number of encoder stages.
        reads_last_skip: Whether the finest decoder stage reads a skip, given the number of spatial axes.
        places: Where the slots are, given the number of encoder stages and of spatial axes.
        published_mixer: The mixer of the paper, whose output replaces the map. That of any other is added to the map.
        mixes_channels_when_small: Whether the published mixer takes the channels of a map as tokens where the map has
            no more voxels than channels.
        initialize: Sets the initial values of one module. Mixers keep their own.
    """

    stem: StemMaker
    stage: StageMaker
    upsample: UpsampleMaker
    upsample_name: str
    has_plain_bottleneck: bool
    block_counts: Callable[[Sequence[int], int], tuple[int, ...]]
    reads_last_skip: Callable[[int], bool]
    places: Callable[[int, int], Places]
    published_mixer: str
    mixes_channels_when_small: bool
    initialize: Callable[[nn.Module], None]

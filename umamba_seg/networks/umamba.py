"""U-Mamba (Ma, Li and Wang 2024, arXiv:2401.04722) in both of its forms.

Generation 1 is the code of the paper, which UU-Mamba and the baseline of LightM-UNet run too. Generation 2 is what the
repository of U-Mamba has held since 27 March 2024.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from umamba_seg.networks.blocks import (
    ConvStem,
    NearestUpsample,
    PooledStage,
    ResidualStage,
    residual_stem,
    start_like_he,
    start_like_he_with_closed_blocks,
    transposed_upsample,
)
from umamba_seg.networks.residual_unet import ResidualUNet
from umamba_seg.networks.rules import Places, Rules


def as_planned(counts: Sequence[int], n_stages: int) -> tuple[int, ...]:
    """Every stage has the blocks of the plan."""
    return tuple(counts)


def one_block_from_half_on(counts: Sequence[int], n_stages: int) -> tuple[int, ...]:
    """The deep half of the encoder and the shallow half of the decoder have one block, whatever the plan says."""
    half = math.ceil(n_stages / 2)
    return (*counts[:half], *(1 for _ in counts[half:]))


def in_3d_only(dims: int) -> bool:
    """In 2D the finest decoder stage reads no skip."""
    return dims == 3


def always(dims: int) -> bool:
    """The finest decoder stage reads a skip in 2D too."""
    return True


def at_bottleneck(n_stages: int, dims: int) -> Places:
    """Behind the deepest stage alone."""
    return Places(has_bottleneck=True)


def behind_every_encoder_stage(n_stages: int, dims: int) -> Places:
    """Behind every stage, in 2D and 3D."""
    return Places(encoder=tuple(range(n_stages)))


def behind_encoder_stages(n_stages: int, dims: int) -> Places:
    """Behind every stage in 3D; in 2D behind every second one, the deepest included."""
    step = 1 if dims == 3 else 2
    return Places(encoder=tuple(range((n_stages - 1) % step, n_stages, step)))


BOT_1 = Rules(
    stem=ConvStem,
    stage=PooledStage,
    upsample=transposed_upsample,
    upsample_name="transpconvs",
    has_plain_bottleneck=True,
    block_counts=as_planned,
    reads_last_skip=always,
    places=at_bottleneck,
    published_mixer="mamba",
    mixes_channels_when_small=False,
    initialize=start_like_he,
)
ENC_1 = replace(BOT_1, places=behind_every_encoder_stage, initialize=start_like_he_with_closed_blocks)

BOT_2 = Rules(
    stem=residual_stem,
    stage=ResidualStage,
    upsample=NearestUpsample,
    upsample_name="upsample_layers",
    has_plain_bottleneck=False,
    block_counts=one_block_from_half_on,
    reads_last_skip=in_3d_only,
    places=at_bottleneck,
    published_mixer="mamba",
    mixes_channels_when_small=False,
    initialize=start_like_he,
)
ENC_2 = replace(BOT_2, places=behind_encoder_stages, mixes_channels_when_small=True)


class UMambaBot(ResidualUNet):
    """U-Mamba with one Mamba layer, at the bottleneck. Takes any input whose axes the total stride divides."""

    generations: ClassVar[Mapping[int, Rules]] = {1: BOT_1, 2: BOT_2}


class UMambaEnc(ResidualUNet):
    """U-Mamba with Mamba layers along the encoder.

    Where a map has no more voxels than channels, the layer of generation 2 mixes over channels; the network then takes
    inputs of `patch_size` only. Generation 1 and `channel_tokens=False` mix voxels everywhere.
    """

    generations: ClassVar[Mapping[int, Rules]] = {1: ENC_1, 2: ENC_2}

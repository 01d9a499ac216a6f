"""U-Mamba (Ma, Li and Wang 2024, arXiv:2401.04722) as its code has been since 27 March 2024, "generation 2"."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from umamba_seg.networks.blocks import NearestUpsample, ResidualStage
from umamba_seg.networks.residual_unet import ResidualUNet
from umamba_seg.networks.rules import Places, Rules


def one_block_from_half_on(counts: Sequence[int], n_stages: int) -> tuple[int, ...]:
    """The deep half of the encoder and the shallow half of the decoder have one block, whatever the plan says."""
    half = math.ceil(n_stages / 2)
    return (*counts[:half], *(1 for _ in counts[half:]))


def in_3d_only(dims: int) -> bool:
    """In 2D the finest decoder stage reads no skip."""
    return dims == 3


def at_bottleneck(n_stages: int, dims: int) -> Places:
    """Behind the deepest stage alone."""
    return Places(has_bottleneck=True)


def behind_encoder_stages(n_stages: int, dims: int) -> Places:
    """Behind every stage in 3D; in 2D behind every second one, the deepest included."""
    step = 1 if dims == 3 else 2
    return Places(encoder=tuple(range((n_stages - 1) % step, n_stages, step)))


class UMambaBot(ResidualUNet):
    """U-Mamba with one Mamba layer, at the bottleneck. Takes any input whose axes the total stride divides."""

    rules: ClassVar[Rules] = Rules(
        stage=ResidualStage,
        upsample=NearestUpsample,
        block_counts=one_block_from_half_on,
        reads_last_skip=in_3d_only,
        places=at_bottleneck,
        published_mixer="mamba",
        mixes_channels_when_small=False,
    )


class UMambaEnc(ResidualUNet):
    """U-Mamba with Mamba layers along the encoder.

    Where a map has no more voxels than channels, the layer mixes over channels; the network then takes inputs of
    `patch_size` only.
    """

    rules: ClassVar[Rules] = replace(UMambaBot.rules, places=behind_encoder_stages, mixes_channels_when_small=True)

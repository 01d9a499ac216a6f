"""The residual U-Net that plans describe, with slots for mixers.

What its stages, upsampling and slots are, the rules of a family say.
Parameter names are those of the published networks, one per tensor.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from umamba_seg.errors import UsageError
from umamba_seg.networks.blocks import channels_written, start_like_he
from umamba_seg.networks.blueprint import Blueprint
from umamba_seg.networks.decoder import Decoder
from umamba_seg.networks.encoder import Encoder
from umamba_seg.networks.layers import Layers, LayerType, locate_conv, locate_layer
from umamba_seg.networks.rules import Rules
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.slot_maker import SlotMaker
from umamba_seg.networks.topology import Size, Topology


class ResidualUNet(nn.Module):
    """A residual U-Net with slots for mixers; subclasses state their rules.

    The arguments are those that nnU-Net writes into plans, and three of ours at the end. None is changed.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return logits at every resolution; switched later by `decoder.deep_supervision`.
        n_stages: Resolutions.
        features_per_stage: Channels of each encoder stage.
        conv_op: `torch.nn.Conv2d` or `torch.nn.Conv3d`; like the classes below, itself or its dotted path.
        kernel_sizes: Kernel of each encoder stage.
        strides: Stride of each encoder stage.
        n_conv_per_stage_decoder: Blocks of each decoder stage, deep to shallow.
        norm_op: Norm behind convolutions; None leaves it out, as it does for the other classes.
        nonlin: Non-linearity.
        n_conv_per_stage: Blocks of each encoder stage.
        n_blocks_per_stage: The same under the name that ResEnc plans give it; one of the two is needed.
        conv_bias: Whether convolutions have a bias; heads always do.
        norm_op_kwargs: Arguments of the norm.
        dropout_op: Dropout behind the first convolution of each block.
        dropout_op_kwargs: Arguments of the dropout.
        nonlin_kwargs: Arguments of the non-linearity.
        patch_size: Size of the input; needed where maps are mixed over their channels, checked where given.
        mixer: What fills the slots, see `umamba_seg.mixers`; `none` leaves them out, with their norms.
        mixer_options: Settings of the mixer.
    """

    rules: ClassVar[Rules]

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: LayerType | str,
        kernel_sizes: int | Sequence[int | Sequence[int]],
        strides: int | Sequence[int | Sequence[int]],
        n_conv_per_stage_decoder: int | Sequence[int],
        norm_op: LayerType | str | None,
        nonlin: LayerType | str | None,
        n_conv_per_stage: int | Sequence[int] | None = None,
        n_blocks_per_stage: int | Sequence[int] | None = None,
        conv_bias: bool = True,
        norm_op_kwargs: Mapping[str, Any] | None = None,
        dropout_op: LayerType | str | None = None,
        dropout_op_kwargs: Mapping[str, Any] | None = None,
        nonlin_kwargs: Mapping[str, Any] | None = None,
        patch_size: Sequence[int] | None = None,
        mixer: str = "mamba",
        mixer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        layers = Layers(
            conv_op=locate_conv(conv_op),
            conv_bias=conv_bias,
            norm_op=locate_layer(norm_op, "norm_op"),
            norm_op_kwargs=norm_op_kwargs or {},
            dropout_op=locate_layer(dropout_op, "dropout_op"),
            dropout_op_kwargs=dropout_op_kwargs or {},
            nonlin=locate_layer(nonlin, "nonlin"),
            nonlin_kwargs=nonlin_kwargs or {},
        )
        plan = Topology.from_plan(
            n_stages,
            layers.dims,
            features_per_stage=features_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            encoder_blocks=_encoder_blocks(n_conv_per_stage, n_blocks_per_stage),
            decoder_blocks=n_conv_per_stage_decoder,
        )
        self.topology = replace(
            plan,
            encoder_blocks=self.rules.block_counts(plan.encoder_blocks, n_stages),
            decoder_blocks=self.rules.block_counts(plan.decoder_blocks, n_stages),
        )
        self.only_size: Size | None = None  # the one size of input that fits the weights, where slots tie them to one
        slots = self._slot_maker(layers.dims, patch_size, mixer, mixer_options or {})
        blueprint = Blueprint(layers, self.topology, self.rules, slots)

        self.encoder = Encoder(input_channels, blueprint)
        self.mamba_layer = slots.slot(n_stages - 1) if blueprint.places.has_bottleneck else None
        self.skip_layers = slots.slots({s: s for s in blueprint.places.skips})
        self.decoder = Decoder(num_classes, deep_supervision, blueprint)
        if patch_size is not None and any(slot.is_channel_wise for _, slot in self._slots()):
            self.only_size = tuple(int(n) for n in patch_size)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of full resolution (b, c, *s); under deep supervision those of every resolution, fine to coarse."""
        self.check_size(x.shape[2:])
        maps = self.encoder(x)
        if self.mamba_layer is not None:
            maps[-1] = self.mamba_layer(maps[-1])
        for s, slot in self.skip_layers.items():
            maps[int(s)] = slot(maps[int(s)])
        return self.decoder(maps)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initial values of one module; nnU-Net applies it to every one. Mixers keep their own."""
        start_like_he(module)

    def check_size(self, size: Sequence[int]) -> None:
        """Accept the sizes of input that this network can take.

        Raises:
            UsageError: An axis is no multiple of its total stride, or the weights are tied to another size.
        """
        steps = self.topology.total_stride
        if len(size) != len(steps):
            raise UsageError(f"this network takes {len(steps)} spatial axes, got {len(size)}", code="bad-size")
        if any(n < step or n % step for n, step in zip(size, steps, strict=True)):
            raise _indivisible(size, steps)
        if self.only_size is not None and tuple(size) != self.only_size:
            raise _tied(type(self).__name__, size, self.only_size)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """What nnU-Net's planner measures: numbers that convolutions write for one image, and that mixers keep."""
        plan, encoder, decoder = self.topology, self.encoder, self.decoder
        sizes = plan.map_sizes(input_size)
        voxels = [math.prod(size) for size in sizes]
        total = channels_written(encoder.stem) * math.prod(int(n) for n in input_size)
        total += sum(channels_written(stage) * n for stage, n in zip(encoder.stages, voxels, strict=True))
        for j, s in enumerate(plan.decoder_order):
            parts = [decoder.upsample_layers[j], decoder.stages[j]]
            if decoder.deep_supervision or s == 0:
                parts.append(decoder.seg_layers[j])
            total += sum(map(channels_written, parts)) * voxels[s]
        return total + sum(slot.saved_elements(sizes[s], plan.features[s]) for s, slot in self._slots())

    def _slot_maker(
        self, dims: int, patch_size: Sequence[int] | None, mixer: str, options: Mapping[str, Any]
    ) -> SlotMaker:
        if patch_size is not None:
            self.check_size(patch_size)
        is_published = mixer == self.rules.published_mixer
        sizes = None
        if is_published and self.rules.mixes_channels_when_small:
            if patch_size is None:
                raise _patch_missing(type(self).__name__)
            sizes = self.topology.map_sizes(patch_size)
        return SlotMaker(mixer, options, dims, self.topology.features, sizes, is_residual=not is_published)

    def _slots(self) -> Iterator[tuple[int, MixerSlot]]:
        """Every slot, after the encoder stage whose maps it is made for."""
        for s, slot in self.encoder.mamba_layers.items():
            yield int(s), cast(MixerSlot, slot)
        if self.mamba_layer is not None:
            yield self.topology.n_stages - 1, self.mamba_layer
        for s, slot in self.skip_layers.items():
            yield int(s), cast(MixerSlot, slot)
        for j, slot in self.decoder.mamba_layers.items():
            yield self.topology.decoder_order[int(j)], cast(MixerSlot, slot)


def _encoder_blocks(n_conv: int | Sequence[int] | None, n_blocks: int | Sequence[int] | None) -> int | Sequence[int]:
    if n_conv is not None and n_blocks is None:
        return n_conv
    if n_blocks is not None and n_conv is None:
        return n_blocks
    raise UsageError("give either n_conv_per_stage or n_blocks_per_stage", code="bad-plan")


def _indivisible(size: Sequence[int], steps: Size) -> UsageError:
    smaller = [max(n // step, 1) * step for n, step in zip(size, steps, strict=True)]
    larger = [-(-n // step) * step for n, step in zip(size, steps, strict=True)]
    return UsageError(
        f"each axis of the input must be a multiple of {_text(steps)}, the total strides; got {_text(size)}",
        how=[f"use {_text(smaller)} or {_text(larger)}" if smaller != larger else f"use {_text(larger)}"],
        code="bad-size",
    )


def _tied(network: str, size: Sequence[int], only: Size) -> UsageError:
    return UsageError(
        f"this {network} mixes small maps over their channels, which ties its weights to inputs of {_text(only)}; got "
        f"{_text(size)}",
        how=[
            f"predict in tiles of {_text(only)}, as nnU-Net does",
            f"plan again for patches of {_text(size)} and train anew",
            "use UMambaBot, which takes any multiple of its total strides",
        ],
        code="bad-size",
    )


def _patch_missing(network: str) -> UsageError:
    return UsageError(
        f"{network} needs patch_size: maps with no more voxels than channels are mixed over their channels",
        how=["add patch_size to arch_kwargs of the plans, equal to the patch_size of the configuration"],
        code="bad-plan",
    )


def _text(size: Sequence[int]) -> str:
    return "×".join(str(int(n)) for n in size)

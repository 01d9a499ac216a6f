"""The residual U-Net that plans describe, with slots for mixers.

What its stages, upsampling and slots are, the rules of a family and its generation say.
Parameter names are those of the published networks, one per tensor.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from umamba_seg.errors import UsageError
from umamba_seg.networks.blocks import channels_written
from umamba_seg.networks.blueprint import Blueprint
from umamba_seg.networks.decoder import Decoder
from umamba_seg.networks.encoder import Encoder
from umamba_seg.networks.layers import Layers, LayerType, locate_conv, locate_layer
from umamba_seg.networks.placing import read_spacing
from umamba_seg.networks.rules import Rules
from umamba_seg.networks.sizes import check_divisible, text
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.slot_maker import SlotMaker
from umamba_seg.networks.topology import Size, Topology


class ResidualUNet(nn.Module):
    """A residual U-Net with slots for mixers; subclasses state the rules of each generation of their family.

    The arguments are those that nnU-Net writes into plans, and ours from `patch_size` on. None is changed.

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
        spacing: Edges of a voxel of the input in mm, for mixers that measure distances; None where nobody knows.
        channel_tokens: Mix small maps over their channels where the family was published so. Without, the network takes
            any input whose axes the total stride divides.
        generation: Which published form of the family, by its number.
    """

    generations: ClassVar[Mapping[int, Rules]]

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
        spacing: Sequence[float] | None = None,
        channel_tokens: bool = True,
        generation: int = 2,
    ) -> None:
        super().__init__()
        self.rules = self._rules_of(generation)
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
        is_published = mixer == self.rules.published_mixer
        slots = SlotMaker(
            mixer,
            mixer_options or {},
            self.rules.published_mixer,
            layers.dims,
            self.topology,
            self._sizes_of_small_maps(patch_size, is_needed=is_published) if channel_tokens else None,
            read_spacing(spacing, layers.dims),
            is_residual=not is_published,
        )
        blueprint = Blueprint(layers, self.topology, self.rules, slots)

        self.encoder = Encoder(input_channels, blueprint)
        self._place_bottleneck(slots.slot(n_stages - 1) if blueprint.places.has_bottleneck else None)
        self.skip_layers = slots.slots({s: s for s in blueprint.places.skips})
        self.decoder = Decoder(num_classes, deep_supervision, blueprint)
        if patch_size is not None and any(slot.is_channel_wise for _, slot in self._slots()):
            self.only_size = tuple(int(n) for n in patch_size)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of full resolution (b, c, *s); under deep supervision those of every resolution, fine to coarse."""
        self.check_size(x.shape[2:])
        maps = self.encoder(x)
        if self.bottleneck is not None:
            maps[-1] = self.bottleneck(maps[-1])
        for s, slot in self.skip_layers.items():
            maps[int(s)] = slot(maps[int(s)])
        return self.decoder(maps)

    @property
    def bottleneck(self) -> MixerSlot | None:
        """The slot behind the encoder."""
        return self._plain_bottleneck[0] if self._plain_bottleneck else self.mamba_layer

    def initialize(self, module: nn.Module) -> None:
        """Initial values of one module; nnU-Net applies it to every one. Mixers keep their own."""
        self.rules.initialize(module)

    def check_size(self, size: Sequence[int]) -> None:
        """Accept the sizes of input that this network can take.

        Raises:
            UsageError: An axis is no multiple of its total stride, or the weights are tied to another size.
        """
        check_divisible(size, self.topology.total_stride)
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
            parts = [decoder.upsampling[j], decoder.stages[j]]
            if decoder.deep_supervision or s == 0:
                parts.append(decoder.seg_layers[j])
            total += sum(map(channels_written, parts)) * voxels[s]
        return total + sum(slot.saved_elements(sizes[s], plan.features[s]) for s, slot in self._slots())

    def _rules_of(self, generation: int) -> Rules:
        if generation not in self.generations:
            known = " or ".join(map(str, sorted(self.generations)))
            what = f"{type(self).__name__} has generation {known}, got {generation!r}"
            raise UsageError(what, code="unknown-generation")
        return self.generations[generation]

    def _sizes_of_small_maps(self, patch_size: Sequence[int] | None, *, is_needed: bool) -> list[Size] | None:
        if patch_size is not None:
            self.check_size(patch_size)
        if not self.rules.mixes_channels_when_small:
            return None
        if patch_size is None and is_needed:
            raise _patch_missing(type(self).__name__)
        return None if patch_size is None else self.topology.map_sizes(patch_size)

    def _place_bottleneck(self, slot: MixerSlot | None) -> None:
        """Register the slot under its published names. A tuple hides it where only its parts have names."""
        is_plain = slot is not None and self.rules.has_plain_bottleneck
        self.mamba_layer = None if is_plain else slot
        self._plain_bottleneck = (slot,) if slot is not None and is_plain else ()
        for hidden in self._plain_bottleneck:
            self.add_module("ln", hidden.norm)
            self.add_module(hidden.name, hidden.mixer)

    def _slots(self) -> Iterator[tuple[int, MixerSlot]]:
        """Every slot, after the encoder stage whose maps it is made for."""
        for s, slot in self.encoder.mamba_layers.items():
            yield int(s), cast(MixerSlot, slot)
        if self.bottleneck is not None:
            yield self.topology.n_stages - 1, self.bottleneck
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


def _tied(network: str, size: Sequence[int], only: Size) -> UsageError:
    return UsageError(
        f"this {network} mixes small maps over their channels, which ties its weights to inputs of {text(only)}; got "
        f"{text(size)}",
        how=[
            f"predict in tiles of {text(only)}, as nnU-Net does",
            f"to fine-tune it with patches of {text(size)}, plan for those and resample its weights by "
            "umamba_seg.networks.resample_weights",
            "for inputs of any size train a network with channel_tokens=False in its arch_kwargs, or a UMambaBot",
        ],
        code="bad-size",
    )


def _patch_missing(network: str) -> UsageError:
    return UsageError(
        f"{network} needs patch_size: maps with no more voxels than channels are mixed over their channels",
        how=[
            "add patch_size to arch_kwargs of the plans, equal to the patch_size of the configuration",
            "or set channel_tokens=False there: voxels are mixed everywhere, and inputs may have any size",
        ],
        code="bad-plan",
    )

"""The way up: upsampling, skips, stages with room for a slot behind each, and heads."""

from typing import cast

import torch
from torch import Tensor, nn

from umamba_seg.networks.blueprint import Blueprint
from umamba_seg.networks.precision import as_wide, saturated


class Decoder(nn.Module):
    """Turns the maps of the encoder into logits. Its lists go from coarse to fine.

    Heads exist for every stage, so that weights load whether or not `deep_supervision` is on.
    """

    def __init__(self, num_classes: int, deep_supervision: bool, blueprint: Blueprint) -> None:
        super().__init__()
        plan, layers, rules = blueprint.topology, blueprint.layers, blueprint.rules
        self.deep_supervision = deep_supervision
        self.n_skips = plan.n_stages - 1 if rules.reads_last_skip(layers.dims) else plan.n_stages - 2
        self.upsample_name = rules.upsample_name
        self.add_module(rules.upsample_name, nn.ModuleList())
        self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList()
        for j, (s, n_blocks) in enumerate(zip(plan.decoder_order, plan.decoder_blocks, strict=True)):
            features = plan.features[s]
            inputs = 2 * features if j < self.n_skips else features
            self.upsampling.append(rules.upsample(layers, plan.features[s + 1], features, plan.strides[s + 1]))
            self.stages.append(rules.stage(layers, inputs, features, plan.kernels[s], 1, n_blocks))
            self.seg_layers.append(layers.head(features, num_classes))
        places = blueprint.places.decoder
        self.mamba_layers = blueprint.slots.slots({j: plan.decoder_order[j] for j in places})

    @property
    def upsampling(self) -> nn.ModuleList:
        """The steps from coarse to fine, whatever their name in checkpoints."""
        return cast(nn.ModuleList, self.get_submodule(self.upsample_name))

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits of full resolution, under deep supervision those of every resolution, fine to coarse."""
        x, skips = maps[-1], maps[-2::-1]
        logits = []
        for j, (upsample, stage) in enumerate(zip(self.upsampling, self.stages, strict=True)):
            with as_wide(x):
                x = saturated(upsample(x))
            if j < self.n_skips:
                x = torch.cat((x, skips[j]), dim=1)
            x = stage(x)
            if str(j) in self.mamba_layers:
                x = self.mamba_layers[str(j)](x)
            if self.deep_supervision:
                logits.append(self.seg_layers[j](x))
        return logits[::-1] if self.deep_supervision else self.seg_layers[-1](x)

"""The way down: stem and stages, each with room for a slot behind it."""

from torch import Tensor, nn

from umamba_seg.networks.blueprint import Blueprint
from umamba_seg.networks.precision import autocast_dtype


class Encoder(nn.Module):
    """Turns an image into one map per stage, fine to coarse."""

    def __init__(self, input_channels: int, blueprint: Blueprint) -> None:
        super().__init__()
        plan, layers, rules = blueprint.topology, blueprint.layers, blueprint.rules
        features, kernels, blocks = plan.features, plan.kernels, plan.encoder_blocks
        inputs = (features[0], *features)  # of each stage: what the stem or the stage before writes
        self.stem = rules.stem(layers, input_channels, features[0], kernels[0], blocks[0])
        self.stages = nn.ModuleList(
            rules.stage(layers, inputs[s], features[s], kernels[s], plan.strides[s], blocks[s])
            for s in range(plan.n_stages)
        )
        self.mamba_layers = blueprint.slots.slots({s: s for s in blueprint.places.encoder})

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps that the decoder reads, as the slots leave them."""
        x = self.stem(x.to(autocast_dtype(x)))  # an image is not wide
        maps = []
        for s, stage in enumerate(self.stages):
            x = stage(x)
            if str(s) in self.mamba_layers:
                x = self.mamba_layers[str(s)](x)
            maps.append(x)
        return maps

"""How large networks are."""

import torch

from umamba_seg.networks.reference_plan import INPUT_CHANNELS, NUM_CLASSES, reference_architecture
from umamba_seg.networks.registry import NetworkRecord, create


def parameters_of(record: NetworkRecord, dims: int, mixer: str | None = None) -> int:
    """How many numbers a network for the reference plan trains."""
    block = reference_architecture(record, dims, mixer=mixer)
    with torch.device("meta"):
        network = create(record.name, INPUT_CHANNELS, NUM_CLASSES, deep_supervision=False, **block["arch_kwargs"])
    return sum(parameter.numel() for parameter in network.parameters())

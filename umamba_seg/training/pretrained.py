"""Weights of another training to begin with."""

from pathlib import Path

import torch
from torch import nn

from umamba_seg.errors import ModelError
from umamba_seg.networks.weights import read_file
from umamba_seg.training.checkpoints import bare

HEADS = ".seg_layers."


def load_all_but_heads(network: nn.Module, file: Path) -> None:
    """Copy the weights of a checkpoint, as nnU-Net's -pretrained_weights does: every one but those of the heads."""
    content = read_file(file)
    weights = content.get("network_weights", content)
    target = bare(network)
    own = target.state_dict()
    wanted = {name for name in own if HEADS not in name}
    missing = sorted(wanted - weights.keys())
    other_shape = sorted(name for name in wanted & weights.keys() if own[name].shape != weights[name].shape)
    if missing or other_shape:
        names = ", ".join([*missing[:3], *other_shape[:3]])
        what = f"{len(missing)} weights are missing and {len(other_shape)} have another shape: {names}"
        how = ["plan the same network with the same patch: umamba plan --from PLANS_OF_THE_CHECKPOINT"]
        raise ModelError(what, where=str(file), how=how, code="pretrained-does-not-fit")
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(weights[name])

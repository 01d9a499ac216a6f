"""SegMamba's configurations as its authors write them."""

from collections.abc import Mapping
from typing import Any

from umamba_seg.networks.published import Published, check_keys
from umamba_seg.networks.segmamba import PUBLISHED_SLICES, SegMamba
from umamba_seg.networks.segmamba_v2 import SegMambaV2

CONFIG_KEYS = {"in_chans", "out_chans", "depths", "feat_size", "hidden_size"}


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our keyword arguments from theirs."""
    check_keys("config", config, CONFIG_KEYS)
    return {
        "input_channels": config["in_chans"],
        "num_classes": config["out_chans"],
        "depths": config["depths"],
        "features": config["feat_size"],
        "hidden": config["hidden_size"],
    }


def arguments_of_v1(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the slices and the start of step sizes that v1 has."""
    return {**arguments(config), "slices": PUBLISHED_SLICES, "mixer_options": {"as_published": True}}


V1 = Published(SegMamba, arguments_of_v1)
V2 = Published(SegMambaV2, arguments)

"""LightM-UNet's configurations as its authors write them."""

from collections.abc import Mapping
from typing import Any

from umamba_seg.networks.lightm_unet import LightMUNet
from umamba_seg.networks.published import Published, check_keys

CONFIG_KEYS = {"spatial_dims", "init_filters", "in_channels", "out_channels", "blocks_down", "blocks_up"}


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our keyword arguments from theirs."""
    check_keys("config", config, CONFIG_KEYS)
    return {
        "input_channels": config["in_channels"],
        "num_classes": config["out_channels"],
        "dims": config["spatial_dims"],
        "init_filters": config["init_filters"],
        "blocks_down": config["blocks_down"],
        "blocks_up": config["blocks_up"],
    }


PUBLISHED = Published(LightMUNet, arguments)

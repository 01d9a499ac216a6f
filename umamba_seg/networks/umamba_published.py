"""U-Mamba's plans and weights as its authors write them.

Their checkpoints list most tensors under further names, because nnU-Net's decoder holds the encoder and its blocks hold
every layer twice; these aliases are dropped.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from umamba_seg.networks.published import Published, check_keys
from umamba_seg.networks.umamba import UMambaBot, UMambaEnc

CONFIG_KEYS = {"configuration", "in_channels", "num_classes"}
CONFIGURATION_KEYS = {
    "patch_size",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
}


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Today's keyword arguments from the lines of an old plan."""
    check_keys("config", config, CONFIG_KEYS)
    plan = config["configuration"]
    check_keys("configuration", plan, CONFIGURATION_KEYS)
    n_stages, dims = len(plan["pool_op_kernel_sizes"]), len(plan["patch_size"])
    base, limit = plan["UNet_base_num_features"], plan["unet_max_num_features"]
    return {
        "input_channels": config["in_channels"],
        "num_classes": config["num_classes"],
        "deep_supervision": True,
        "n_stages": n_stages,
        "features_per_stage": [min(base * 2**s, limit) for s in range(n_stages)],
        "conv_op": f"torch.nn.Conv{dims}d",
        "kernel_sizes": plan["conv_kernel_sizes"],
        "strides": plan["pool_op_kernel_sizes"],
        "n_conv_per_stage": plan["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": plan["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "patch_size": plan["patch_size"],
    }


def first_name(name: str) -> str:
    """The name of a tensor that may be given by an alias."""
    name = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


BOT = Published(UMambaBot, arguments, first_name)
ENC = Published(UMambaEnc, arguments, first_name)
GEN1_BOT = Published(partial(UMambaBot, generation=1), arguments, first_name)
GEN1_ENC = Published(partial(UMambaEnc, generation=1), arguments, first_name)

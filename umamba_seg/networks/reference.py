"""The networks as their authors published them, from recorded configurations and weights.

Parameter names are the authors' own. Their checkpoints list most tensors under further names, because nnU-Net's decoder
holds the encoder and its blocks hold every layer twice; these aliases are dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from umamba_seg.errors import ModelError, UsageError
from umamba_seg.networks.residual_unet import ResidualUNet
from umamba_seg.networks.umamba import UMambaBot, UMambaEnc

FAMILIES: dict[str, type[ResidualUNet]] = {"umamba_bot": UMambaBot, "umamba_enc": UMambaEnc}

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


def from_reference(family: str, config: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build a published network, deep supervision on; initial values when no weights are given.

    Args:
        family: `umamba_bot` or `umamba_enc`, U-Mamba as it has been since 27 March 2024 (generation 2).
        config: `in_channels`, `num_classes`, and as `configuration` the lines of a U-Mamba plan that shape the network.
        state_dict: Weights under their published names, with or without aliases.

    Raises:
        UsageError: The family is not known, or the configuration has a key too many or too few.
        ModelError: A weight is missing, is unexpected or has another shape.
    """
    if family not in FAMILIES:
        raise UsageError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}", code="unknown-family")
    network = FAMILIES[family](**_arguments(config))
    if state_dict is None:
        return network.apply(network.initialize)
    _check_weights(network.state_dict(), state_dict)
    network.load_state_dict({name: state_dict[name] for name in network.state_dict()})
    return network


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Today's keyword arguments from the lines of an old plan."""
    _check_keys("config", config, CONFIG_KEYS)
    plan = config["configuration"]
    _check_keys("configuration", plan, CONFIGURATION_KEYS)
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


def _check_keys(name: str, given: Mapping[str, Any], wanted: set[str]) -> None:
    if given.keys() != wanted:
        missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
        faults = _listed({"lacks": missing, "has unknown": unknown})
        raise UsageError(f"{name} {faults}", code="bad-config")


def _check_weights(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if _first_name(name) not in wanted]
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if missing or unexpected or misshapen:
        faults = _listed({"lack": missing, "have unexpected": unexpected, "have other shapes:": misshapen})
        raise ModelError(f"the weights do not fit the network: they {faults}", code="bad-weights")


def _first_name(name: str) -> str:
    """The name of a tensor that may be given by an alias."""
    name = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


def _listed(faults: Mapping[str, Sequence[str]], shown: int = 5) -> str:
    parts = []
    for verb, names in faults.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        parts += [f"{verb} {', '.join(names[:shown])}{more}"] if names else []
    return ", ".join(parts)

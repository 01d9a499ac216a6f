"""Plans with another network in them, and all else as it was: the controlled comparison."""

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from umamba_seg.networks.architecture import architecture, with_mixer
from umamba_seg.networks.reference_plan import reference_architecture
from umamba_seg.networks.registry import NETWORKS, NetworkRecord
from umamba_seg.planning.stages import stages_for

# What nnU-Net's planners write. Plans of ours have more, which belongs to the network that goes.
_KEYWORDS = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"),
    *("n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs"),
    *("nonlin", "nonlin_kwargs"),
}
_TIED_TO_NETWORK = ("architecture", "patch_size", "spacing")


def swapped(plans: Mapping[str, Any], network: NetworkRecord, mixer: str, plans_name: str) -> dict[str, Any]:
    """Plans of the same patch, batch, spacing and data for another network.

    A configuration that inherits all that a network depends on goes on to do so; any other gets a whole block, as
    nnU-Net completes configurations by a shallow update.
    """
    manager = PlansManager(dict(plans))
    configurations = {}
    for name, entry in plans["configurations"].items():
        configurations[name] = dict(entry)
        if "inherits_from" not in entry or any(key in entry for key in _TIED_TO_NETWORK):
            whole = manager.get_configuration(name).configuration
            configurations[name]["architecture"] = architecture(
                network, _like_nnunet(whole), whole["patch_size"], mixer=mixer, spacing=whole["spacing"]
            )
    return {**plans, "plans_name": plans_name, "configurations": configurations}


def twin_of(plans: Mapping[str, Any], mixer: str, plans_name: str) -> dict[str, Any]:
    """The same plans with another mixer in the network's slots: same patch, batch, spacing and data."""
    configurations = {
        name: {**entry, "architecture": with_mixer(entry["architecture"], mixer)} if "architecture" in entry else entry
        for name, entry in plans["configurations"].items()
    }
    return {**plans, "plans_name": plans_name, "configurations": configurations}


def _like_nnunet(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture as nnU-Net's default planner would have it for this patch, stages as they are where they are."""
    block, patch = configuration["architecture"], configuration["patch_size"]
    changes: dict[str, Any] = {}
    if "features_per_stage" not in block["arch_kwargs"]:  # a network that has stages of its own
        block = reference_architecture(NETWORKS["umamba_bot"], len(patch))
        changes = stages_for(configuration["spacing"], patch)
    kwargs = {name: value for name, value in block["arch_kwargs"].items() if name in _KEYWORDS}
    return {"arch_kwargs": kwargs | changes, "_kw_requires_import": block["_kw_requires_import"]}

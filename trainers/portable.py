"""The base of our trainers: stock training of a network of ours, whatever network the plans name.

The architecture goes into the trainer's own copy of the plans, which nnU-Net writes beside the checkpoints. So training
and prediction build the network in the same, stock way, and prediction needs this package but not its trainers.
"""

from copy import deepcopy
from typing import Any, ClassVar

import torch

from umamba_seg.networks import registry
from umamba_seg.networks.architecture import architecture
from umamba_seg.training.checkpoints import PortableCheckpoints
from umamba_seg.training.guard import GuardedUpdates


class PortableTrainer(GuardedUpdates, PortableCheckpoints):
    """A stock trainer whose network is `network_name`; its results load in stock nnU-Net."""

    network_name: ClassVar[str]

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host introspects this signature)
    ) -> None:
        plans = with_network(plans, configuration, self.network_name)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.set_recipe()

    def set_recipe(self) -> None:
        """Change the host's numbers, such as `num_epochs`; called once they are set."""


def with_network(plans: dict[str, Any], configuration: str, network_name: str) -> dict[str, Any]:
    """A copy of the plans in which one configuration names our network; plans that name one of ours stay so."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    changed = deepcopy(plans)
    resolved = PlansManager({**changed, "continue_training": False}).get_configuration(configuration).configuration
    if not resolved["architecture"]["network_class_name"].startswith("umamba_seg."):
        # the whole block: a configuration that inherits is completed by a shallow update
        block = architecture(
            registry.find(network_name), resolved["architecture"], resolved["patch_size"], spacing=resolved["spacing"]
        )
        changed["configurations"][configuration]["architecture"] = block
    return changed

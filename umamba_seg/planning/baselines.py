"""nnU-Net's own networks, planned by its own planners: what ours are to be compared with."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from umamba_seg.errors import unknown
from umamba_seg.networks.registry import NETWORKS, NetworkRecord
from umamba_seg.planning.budget import PLAIN, RESIDUAL, Budget

_RESENC = "nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners"
_DEFAULT = "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner"


@dataclass(frozen=True, slots=True)
class Baseline:
    """A planner of nnU-Net's.

    Args:
        name: What users type.
        planner: `module:class`.
        plans_name: Upstream's name of its plans.
        vram_gb: GPU memory it is made for.
        budget: How upstream turns elements into memory.
        data_share: How much of the data a batch may be.
    """

    name: str
    planner: str
    plans_name: str
    vram_gb: float
    budget: Budget
    data_share: float

    def name_of_plans(self, vram_gb: float) -> str:
        """Upstream's name, with the memory in it where that is not upstream's."""
        return (
            self.plans_name if vram_gb == self.vram_gb else f"{self.plans_name.removesuffix('Plans')}{vram_gb:g}GPlans"
        )

    def load_planner(self) -> type[Any]:
        """The planner's class."""
        module, _, attribute = self.planner.partition(":")
        planner: type[Any] = getattr(import_module(module), attribute)
        return planner


BASELINES = {
    "nnunet": Baseline("nnunet", f"{_DEFAULT}:ExperimentPlanner", "nnUNetPlans", 8, PLAIN, 0.05),
    "resenc_m": Baseline("resenc_m", f"{_RESENC}:nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", 8, RESIDUAL, 1.0),
    "resenc_l": Baseline("resenc_l", f"{_RESENC}:nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans", 24, RESIDUAL, 1.0),
    "resenc_xl": Baseline(
        "resenc_xl", f"{_RESENC}:nnUNetPlannerResEncXL", "nnUNetResEncUNetXLPlans", 40, RESIDUAL, 1.0
    ),
}


def find(name: str) -> NetworkRecord | Baseline:
    """What can be planned under this name.

    Raises:
        UsageError: Neither a network of ours nor one of nnU-Net's has it.
    """
    found = NETWORKS.get(name) or BASELINES.get(name)
    if found is None:
        how = ["`umamba networks` lists ours", f"nnU-Net's own are {', '.join(BASELINES)}"]
        raise unknown("network", name, [*NETWORKS, *BASELINES], where="--network", how=how)
    return found

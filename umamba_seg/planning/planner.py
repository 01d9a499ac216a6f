"""nnU-Net's own planning with one of our networks in its place.

Resampling, normalisation, target spacing and the search for patch and batch are upstream's; what differs is the network
whose memory is estimated, and that a user may fix patch and batch. Preprocessed data are shared with nnU-Net's default
plans.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from umamba_seg.errors import UsageError
from umamba_seg.networks.architecture import architecture
from umamba_seg.networks.registry import NetworkRecord
from umamba_seg.planning import meta
from umamba_seg.planning.baselines import Baseline
from umamba_seg.planning.budget import RESIDUAL
from umamba_seg.planning.stages import fitting_patch, stages_for


class _Planner(ExperimentPlanner):
    """Plans without writing a file or allocating a weight."""

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Make the plans plain JSON; who asked for them writes them."""
        recursive_fix_for_json_export(plans)

    def static_estimate_VRAM_usage(  # noqa: N802  (the host's name; it is called through the instance)
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Elements that training keeps for one sample, counted as upstream counts them."""
        block = {
            "network_class_name": arch_class_name,
            "arch_kwargs": arch_kwargs,
            "_kw_requires_import": arch_kwargs_req_import,
        }
        network = meta.build(block, input_channels, output_channels, deep_supervision=None)
        count: int = network.compute_conv_feature_map_size(patch_size)
        return count


class UMambaPlanner(_Planner):
    """Plans one of our networks.

    Args:
        dataset_name: `Dataset004_Hippocampus`.
        network: What to plan.
        mixer: What fills the network's slots.
        vram_gb: GPU memory to plan for.
        plans_name: Name of the plans.
        patch: Patch size for configurations of as many axes, as nnU-Net orders them; None lets nnU-Net choose, as it
            does for 3d_lowres in any case.
        batch: Batch size to use; None lets nnU-Net choose.
        features: Channels of the first stage, doubled with every further one.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        network: NetworkRecord,
        mixer: str,
        vram_gb: float,
        plans_name: str,
        patch: Sequence[int] | None = None,
        batch: int | None = None,
        features: int = 32,
    ) -> None:
        super().__init__(dataset_name, gpu_memory_target_in_gb=vram_gb, plans_name=plans_name)
        self.network, self.mixer, self.patch, self.batch = network, mixer, patch, batch
        self._built: Any = None
        self._built_block: dict[str, Any] | None = None
        self.UNet_base_num_features = features
        self.UNet_reference_val_corresp_GB = vram_gb
        self.UNet_reference_val_2d, self.UNet_reference_val_3d = (RESIDUAL.elements_for(vram_gb, n) for n in (2, 3))

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Preprocessing does not depend on the network: the folders of nnU-Net's default plans serve ours."""
        shared = "nnUNetPlans" if configuration_name in ("2d", "3d_fullres") else self.plans_identifier
        return f"{shared}_{configuration_name}"

    def static_estimate_VRAM_usage(  # noqa: N802
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Elements that training keeps for one sample of our network, in convolutions and scans."""
        like = {"arch_kwargs": arch_kwargs, "_kw_requires_import": arch_kwargs_req_import}
        block = architecture(self.network, like, patch_size, mixer=self.mixer)
        if block != self._built_block:  # of many patches that are tried, most have the same network
            self._built, self._built_block = meta.build(block, input_channels, output_channels), block
        count: int = self._built.compute_conv_feature_map_size(patch_size)
        return count

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray,
        median_shape: np.ndarray,
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, int],
    ) -> dict[str, Any]:
        """Upstream's configuration, with the user's patch and batch and our architecture block."""
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        if self.patch is not None and len(self.patch) == len(spacing) and not data_identifier.endswith("3d_lowres"):
            self._fix_patch(plan, spacing, self.patch)
        if self.batch is not None:
            plan["batch_size"] = self.batch
        plan["architecture"] = architecture(
            self.network, plan["architecture"], plan["patch_size"], mixer=self.mixer, spacing=plan["spacing"]
        )
        return plan

    def _fix_patch(self, plan: dict[str, Any], spacing: np.ndarray, patch: Sequence[int]) -> None:
        fitting, divisors = fitting_patch(spacing, patch)
        if fitting != list(patch):
            raise _unfit_patch(patch, fitting, divisors)
        plan["patch_size"] = list(patch)
        plan["architecture"]["arch_kwargs"] |= stages_for(spacing, patch, self.UNet_base_num_features)


def baseline_planner(baseline: Baseline, dataset_name: str, *, vram_gb: float, plans_name: str) -> Any:
    """One of upstream's planners that leaves writing to us; its plans are those of the stock command."""
    upstream = baseline.load_planner()
    # plans carry the name of the class that made them
    quiet = type(upstream.__name__, (_Planner, upstream), {})
    return quiet(dataset_name, gpu_memory_target_in_gb=vram_gb, plans_name=plans_name)


def _unfit_patch(patch: Sequence[int], fitting: Sequence[int], divisors: Sequence[int]) -> UsageError:
    wanted, near, steps = (",".join(map(str, sizes)) for sizes in (patch, fitting, divisors))
    return UsageError(
        f"patch {wanted} does not fit the network's strides: its axes must be multiples of {steps}",
        where="--patch",
        how=[f"the next larger patch that fits is --patch {near}"],
        code="patch-does-not-fit",
    )

"""nnU-Net's own planning with one of our networks in its place.

Resampling, normalisation, target spacing and the search for patch and batch are upstream's; what differs is the network
whose memory is estimated, and that a user may fix patch and batch. Preprocessed data are shared with nnU-Net's default
plans.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from umamba_seg.errors import UsageError
from umamba_seg.networks.architecture import architecture
from umamba_seg.networks.registry import NetworkRecord

# Elements of feature maps that, by upstream's measurements for residual encoders, fill 8 GB at batch 2 (3D) and 12
# (2D). Nobody has measured ours on a GPU yet, so what follows from them is called an estimate.
REFERENCE_ELEMENTS = {2: 135e6, 3: 680e6}
REFERENCE_BATCH = {2: 12, 3: 2}
REFERENCE_GB = 8.0
_NO_LIMIT = 999999  # upstream's word for "pool as often as the edge length allows"


class UMambaPlanner(ExperimentPlanner):
    """Plans one of our networks.

    Args:
        dataset_name: `Dataset004_Hippocampus`.
        network: What to plan.
        mixer: What fills the network's slots.
        vram_gb: GPU memory to plan for.
        plans_name: Name of the plans.
        patch: Patch size for configurations of as many axes, as nnU-Net orders them; None lets nnU-Net choose.
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
        self.UNet_base_num_features = features
        self.UNet_reference_val_2d, self.UNet_reference_val_3d = REFERENCE_ELEMENTS[2], REFERENCE_ELEMENTS[3]

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Preprocessing does not depend on the network: the folders of nnU-Net's default plans serve ours."""
        shared = "nnUNetPlans" if configuration_name in ("2d", "3d_fullres") else self.plans_identifier
        return f"{shared}_{configuration_name}"

    def static_estimate_VRAM_usage(  # noqa: N802  (the host's name; it is called through the instance)
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Elements that training keeps for one sample, in convolutions and scans; no weight is allocated for it."""
        like = {"arch_kwargs": arch_kwargs, "_kw_requires_import": arch_kwargs_req_import}
        block = architecture(self.network, like, patch_size, mixer=self.mixer)
        return elements(block, patch_size, input_channels, output_channels)

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

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Make the plans plain JSON; who asked for them writes them."""
        recursive_fix_for_json_export(plans)

    def _fix_patch(self, plan: dict[str, Any], spacing: np.ndarray, patch: Sequence[int]) -> None:
        _, strides, kernels, fitting, divisors = get_pool_and_conv_props(
            spacing, patch, self.UNet_featuremap_min_edge_length, _NO_LIMIT
        )
        if list(fitting) != list(patch):
            raise _unfit_patch(patch, fitting, divisors)
        stages = len(strides)
        most = self.UNet_max_features_2d if len(patch) == 2 else self.UNet_max_features_3d
        plan["patch_size"] = list(patch)
        plan["architecture"]["arch_kwargs"] |= {
            "n_stages": stages,
            "features_per_stage": [min(most, self.UNet_base_num_features * 2**stage) for stage in range(stages)],
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": self.UNet_blocks_per_stage_encoder[:stages],
            "n_conv_per_stage_decoder": self.UNet_blocks_per_stage_decoder[: stages - 1],
        }


def elements(block: dict[str, Any], patch_size: Sequence[int], input_channels: int, output_channels: int) -> int:
    """Elements that training keeps for one sample of a network that plans name."""
    count: int = build_without_memory(block, input_channels, output_channels).compute_conv_feature_map_size(patch_size)
    return count


def build_without_memory(block: dict[str, Any], input_channels: int, output_channels: int) -> Any:
    """The network of an architecture block on the meta device: shapes without values."""
    with torch.device("meta"):
        return get_network_from_plans(
            block["network_class_name"],
            block["arch_kwargs"],
            block["_kw_requires_import"],
            input_channels,
            output_channels,
            allow_init=False,
            deep_supervision=True,
        )


def estimated_gb(elements_per_sample: float, batch: int, dims: int) -> float:
    """GPU memory in training, by proportion to upstream's measured reference."""
    return REFERENCE_GB * elements_per_sample / REFERENCE_ELEMENTS[dims] * batch / REFERENCE_BATCH[dims]


def _unfit_patch(patch: Sequence[int], fitting: Sequence[int], divisors: Sequence[int]) -> UsageError:
    wanted, near = ",".join(map(str, patch)), ",".join(str(int(size)) for size in fitting)
    steps = ",".join(str(int(step)) for step in divisors)
    return UsageError(
        f"patch {wanted} does not fit the network's strides: its axes must be multiples of {steps}",
        where="--patch",
        how=[f"the next larger patch that fits is --patch {near}"],
        code="patch-does-not-fit",
    )

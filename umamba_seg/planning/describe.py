"""What plans say, for the one who has to decide on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from umamba_seg.planning import meta
from umamba_seg.planning.budget import Budget


@dataclass(frozen=True, slots=True)
class Measured:
    """What training steps took on a device.

    Args:
        device: Its kind.
        memory_gb: The most that was held; on CUDA that torch reserved, elsewhere by how much the process grew.
        epoch_seconds: 250 times the median step; reading and augmenting data comes on top.
        iterations: How many steps were timed.
    """

    device: str
    memory_gb: float
    epoch_seconds: float
    iterations: int


@dataclass(frozen=True, slots=True)
class PlannedConfiguration:
    """What was chosen for one configuration, and why."""

    name: str
    patch: tuple[int, ...]
    batch: int
    spacing: tuple[float, ...]
    stages: int
    parameters: int
    memory_gb: float
    why: str
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    """One plans file."""

    plans_name: str
    file: Path
    network: str
    mixer: str | None
    state: str
    configurations: tuple[PlannedConfiguration, ...]


@dataclass(frozen=True, slots=True)
class Reasons:
    """What decided on patch and batch.

    Args:
        vram_gb: Memory planned for.
        patch: The patch that the user asked for, if any.
        batch: The batch that the user asked for, if any.
        source: The plans they were taken from, if any.
        data_share: How much of the data a batch may be.
    """

    vram_gb: float
    patch: Sequence[int] | None = None
    batch: int | None = None
    source: str | None = None
    data_share: float = 0.05


def describe(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], budget: Budget, reasons: Reasons
) -> PlannedConfiguration:
    """What one configuration holds, inherited values included.

    Raises:
        UsageError: The network cannot be built for it, or does not take its patch.
    """
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    entry = chosen.configuration
    channels = determine_num_input_channels(manager, chosen, dataset_json)
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    network = meta.build(entry["architecture"], channels, heads)
    meta.check_patch(network, entry["patch_size"], where=f"{plans['plans_name']}, {configuration}")
    dims = len(entry["patch_size"])
    count: int = network.compute_conv_feature_map_size(entry["patch_size"])
    return PlannedConfiguration(
        configuration,
        tuple(entry["patch_size"]),
        entry["batch_size"],
        tuple(entry["spacing"]),
        len(entry["architecture"]["arch_kwargs"]["strides"]),
        meta.parameters(network),
        budget.gb_for(count, entry["batch_size"], dims),
        _why(entry, reasons),
    )


def _why(entry: Mapping[str, Any], reasons: Reasons) -> str:
    if reasons.source is not None:
        return f"as in {reasons.source}"
    median = entry["median_image_size_in_voxels"]
    if reasons.patch is not None and list(reasons.patch) == list(entry["patch_size"]):
        patch = "patch as asked"
    elif all(size >= whole for size, whole in zip(entry["patch_size"], median, strict=True)):
        patch = "patch covers the median image"
    else:
        patch = f"largest patch for {reasons.vram_gb:g} GB"
    if reasons.batch is not None:
        return f"{patch}, batch as asked"
    if entry["batch_size"] == 2:
        return f"{patch}, smallest batch"
    return f"{patch}, batch fills the memory or is {reasons.data_share:.0%} of the data"

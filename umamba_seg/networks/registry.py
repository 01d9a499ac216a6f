"""The networks by name, with what the planner and `umamba networks` say about them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from umamba_seg.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """What is known of a network before it is built.

    Args:
        name: What users type.
        title: What tables show.
        class_path: `network_class_name` of plans; frozen.
        dims: Spatial axes it can be built for.
        paper: Where it is described.
        deep_supervision: Whether it returns outputs at several resolutions.
        needs_patch_size: Whether plans carry `patch_size` in its keyword arguments.
        patch_rule: What a patch must satisfy.
        weights: Whose weights load into it.
        mixer: The mixer of the paper.
        fixed: Keyword arguments that the name stands for, beside the class.
        arch_kwargs: `module:function` that makes the other keyword arguments from those of a plan and its patch size;
            None for networks that take them as they are.
    """

    name: str
    title: str
    class_path: str
    dims: tuple[int, ...]
    paper: str
    deep_supervision: bool
    needs_patch_size: bool
    patch_rule: str
    weights: str
    mixer: str = "mamba"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    arch_kwargs: str | None = None


_UMAMBA_PAPER = "Ma, Li and Wang 2024, arXiv:2401.04722"
_GEN1_WEIGHTS = "own checkpoints of bowang-lab/U-Mamba before 27 March 2024 (generation 1)"
_UMAMBA_WEIGHTS = "own checkpoints of bowang-lab/U-Mamba of 27 March 2024 or later (generation 2); none are published"

NETWORKS: dict[str, NetworkRecord] = {
    "umamba_bot": NetworkRecord(
        name="umamba_bot",
        title="U-Mamba Bot",
        class_path="umamba_seg.networks.UMambaBot",
        dims=(2, 3),
        paper=_UMAMBA_PAPER,
        deep_supervision=True,
        needs_patch_size=False,
        patch_rule="each axis divisible by its total stride",
        weights=_UMAMBA_WEIGHTS,
    ),
    "umamba_enc": NetworkRecord(
        name="umamba_enc",
        title="U-Mamba Enc",
        class_path="umamba_seg.networks.UMambaEnc",
        dims=(2, 3),
        paper=_UMAMBA_PAPER,
        deep_supervision=True,
        needs_patch_size=True,
        patch_rule="each axis divisible by its total stride; one size for all use where the deepest maps have no more "
        "voxels than channels",
        weights=_UMAMBA_WEIGHTS,
    ),
    "umamba_gen1_bot": NetworkRecord(
        name="umamba_gen1_bot",
        title="U-Mamba Bot of the paper",
        class_path="umamba_seg.networks.UMambaBot",
        dims=(2, 3),
        paper=_UMAMBA_PAPER,
        deep_supervision=True,
        needs_patch_size=False,
        patch_rule="each axis divisible by its total stride",
        weights=_GEN1_WEIGHTS,
        fixed={"generation": 1},
    ),
    "umamba_gen1_enc": NetworkRecord(
        name="umamba_gen1_enc",
        title="U-Mamba Enc of the paper",
        class_path="umamba_seg.networks.UMambaEnc",
        dims=(2, 3),
        paper=_UMAMBA_PAPER,
        deep_supervision=True,
        needs_patch_size=False,
        patch_rule="each axis divisible by its total stride",
        weights=f"UU-Mamba's checkpoint, {_GEN1_WEIGHTS}",
        fixed={"generation": 1},
    ),
    "segmamba": NetworkRecord(
        name="segmamba",
        title="SegMamba",
        class_path="umamba_seg.networks.SegMamba",
        dims=(2, 3),
        paper="Xing et al. 2024, arXiv:2401.13560",
        deep_supervision=False,
        needs_patch_size=False,
        patch_rule="each axis divisible by 16, its total stride unless the plan has others, and one larger than that; "
        "weights of its authors need slices, and with them (z/16)·(y/16)·(x/16) divisible by 8",
        weights="ge-xing/SegMamba, all three generations of its layers",
        mixer="segmamba",
        arch_kwargs="umamba_seg.networks.segmamba_plan:arch_kwargs_from",
    ),
    "segmamba_v2": NetworkRecord(
        name="segmamba_v2",
        title="SegMamba-V2",
        class_path="umamba_seg.networks.SegMambaV2",
        dims=(2, 3),
        paper="Xing et al. 2025, doi:10.1109/TMI.2025.3589797",
        deep_supervision=False,
        needs_patch_size=False,
        patch_rule="each axis divisible by 16, its total stride unless the plan has others, and one larger than that",
        weights="ge-xing/SegMamba-V2",
        mixer="segmamba_v2",
        arch_kwargs="umamba_seg.networks.segmamba_plan:arch_kwargs_from",
    ),
    "lightm_unet": NetworkRecord(
        name="lightm_unet",
        title="LightM-UNet",
        class_path="umamba_seg.networks.LightMUNet",
        dims=(2, 3),
        paper="Liao et al. 2024, arXiv:2403.05246",
        deep_supervision=False,
        needs_patch_size=False,
        patch_rule="each axis divisible by 8, its total stride unless the plan has others",
        weights="own checkpoints of MrBlankness/LightM-UNet of 29 March 2024 or later; none are published",
        arch_kwargs="umamba_seg.networks.lightm_unet_plan:arch_kwargs_from",
    ),
}


def find(name: str) -> NetworkRecord:
    """The record of the network called `name`.

    Raises:
        UsageError: No network has this name.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    raise unknown("network", name, NETWORKS, how=["`umamba networks` lists them all"])


def create(
    name: str, input_channels: int, num_classes: int, deep_supervision: bool = False, **arch_kwargs: Any
) -> nn.Module:
    """Build the network called `name`, with the initial values of its paper.

    Args:
        name: A key of `NETWORKS`.
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        deep_supervision: Return logits at every resolution, where the network has them.
        arch_kwargs: Arguments of its class, see there; those of an architecture block of a plan are such.

    Raises:
        UsageError: No network has this name, or an argument contradicts the name.
    """
    record = find(name)
    for option, value in record.fixed.items():
        if arch_kwargs.get(option, value) != value:
            what = f"{name} stands for {option}={value!r}, got {option}={arch_kwargs[option]!r}"
            raise UsageError(what, code="contradiction")
    package, _, attribute = record.class_path.rpartition(".")
    network = getattr(import_module(package), attribute)
    return with_initial_values(
        network(input_channels, num_classes, deep_supervision, **{**arch_kwargs, **record.fixed})
    )


def with_initial_values(network: nn.Module) -> nn.Module:
    """The network with the initial values of its family, set as nnU-Net sets them."""
    return network.apply(cast("Any", network).initialize) if hasattr(network, "initialize") else network

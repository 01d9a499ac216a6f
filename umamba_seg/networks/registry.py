"""The networks by name, with what the planner and `umamba networks` say about them. Imports no torch."""

from dataclasses import dataclass

from umamba_seg.errors import unknown


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


_UMAMBA_PAPER = "Ma, Li and Wang 2024, arXiv:2401.04722"
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
}


def find(name: str) -> NetworkRecord:
    """The record of the network called `name`.

    Raises:
        UsageError: No network has this name.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    raise unknown("network", name, NETWORKS, how=["`umamba networks` lists them all"])

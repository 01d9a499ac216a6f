"""Networks built on the meta device: shapes without values, and no memory for weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from umamba_seg.errors import UsageError


def build(
    block: Mapping[str, Any], input_channels: int, output_channels: int, *, deep_supervision: bool | None = True
) -> Any:
    """The network of an architecture block; None leaves deep supervision to the network."""
    with torch.device("meta"):
        return get_network_from_plans(
            block["network_class_name"],
            block["arch_kwargs"],
            block["_kw_requires_import"],
            input_channels,
            output_channels,
            allow_init=False,
            deep_supervision=deep_supervision,
        )


def parameters(network: Any) -> int:
    """How many numbers it trains."""
    return sum(parameter.numel() for parameter in network.parameters())


def check_patch(network: Any, patch_size: Sequence[int], *, where: str) -> None:
    """Accept a patch that the network can take.

    Raises:
        UsageError: It cannot; the error names sizes that fit.
    """
    if not hasattr(network, "check_size"):  # upstream's networks, for which upstream makes patches that fit
        return
    try:
        network.check_size(patch_size)
    except UsageError as fault:
        patch = "×".join(str(int(size)) for size in patch_size)
        raise UsageError(
            f"the patch {patch} does not fit {type(network).__name__}: {fault.what}",
            where=where,
            how=fault.how,
            code="patch-does-not-fit",
        ) from fault

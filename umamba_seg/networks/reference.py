"""The networks as their authors published them, from recorded configurations and weights.

Parameter names are the authors' own, the first one where their checkpoints list a tensor under several.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from torch import Tensor, nn

from umamba_seg.errors import UsageError
from umamba_seg.networks.published import Published, check_weights
from umamba_seg.networks.registry import with_initial_values

FAMILIES: dict[str, str] = {
    "umamba_bot": "umamba_seg.networks.umamba_published:BOT",
    "umamba_enc": "umamba_seg.networks.umamba_published:ENC",
    "umamba_gen1_bot": "umamba_seg.networks.umamba_published:GEN1_BOT",
    "umamba_gen1_enc": "umamba_seg.networks.umamba_published:GEN1_ENC",
    "segmamba_v1": "umamba_seg.networks.segmamba_published:V1",
    "segmamba_v2": "umamba_seg.networks.segmamba_published:V2",
    "lightm_unet": "umamba_seg.networks.lightm_unet_published:PUBLISHED",
}


def from_reference(family: str, config: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build a published network, deep supervision on where it has it; initial values when no weights are given.

    Args:
        family: A key of `FAMILIES`.
        config: What shapes the network, under the names of its authors. For U-Mamba `in_channels`, `num_classes`, and
            as `configuration` the lines of a plan of its time.
        state_dict: Weights under their published names, with or without the further names that some have.

    Raises:
        UsageError: The family is not known, or the configuration has a key too many or too few.
        ModelError: A weight is missing, is unexpected or has another shape.
    """
    published = _find(family)
    network = published.network(**published.arguments(config))
    if state_dict is None:
        return with_initial_values(network)
    check_weights(network.state_dict(), state_dict, published.first_name)
    network.load_state_dict({name: state_dict[name] for name in network.state_dict()})
    return network


def _find(family: str) -> Published:
    if family not in FAMILIES:
        raise UsageError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}", code="unknown-family")
    module, _, attribute = FAMILIES[family].partition(":")
    return cast(Published, getattr(import_module(module), attribute))

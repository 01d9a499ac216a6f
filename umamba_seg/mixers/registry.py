"""The mixers by name. Nothing is loaded until it is asked for."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from umamba_seg.errors import UsageError, unknown
from umamba_seg.mixers.place import Place

if TYPE_CHECKING:
    from umamba_seg.mixers.mixer import Mixer

MIXERS: dict[str, str | None] = {
    "mamba": "umamba_seg.mixers.mamba:MambaMixer",
    "bidirectional": "umamba_seg.mixers.bidirectional:BidirectionalMixer",
    "segmamba": "umamba_seg.mixers.segmamba:SegMambaMixer",
    "segmamba_v2": "umamba_seg.mixers.segmamba_v2:SegMambaV2Mixer",
    "axes": "umamba_seg.mixers.axes:AxesMixer",
    "routes": "umamba_seg.mixers.routes:RoutesMixer",
    # controls: what a mixer with a scan must be better than
    "gated_conv": "umamba_seg.mixers.gated_conv:GatedConvMixer",
    "mambaout": "umamba_seg.mixers.mambaout:MambaOutMixer",
    "large_kernel": "umamba_seg.mixers.large_kernel:LargeKernelMixer",
    "conv": "umamba_seg.mixers.conv:ConvMixer",
    "none": None,  # no module at all: the slot disappears, with its norm
}


NOWHERE = Place()


def create(name: str, channels: int, *, spatial_dims: int, place: Place = NOWHERE, **options: Any) -> Mixer | None:
    """Build the mixer called `name`.

    Args:
        name: A key of `MIXERS`.
        channels: Channels of the feature map, the same in and out.
        spatial_dims: Spatial axes of the feature map.
        place: What the slot knows. The mixer gets each fact that its constructor has an argument for, unless `options`
            sets it.
        options: Settings of this mixer, see its class. `none` has nothing to set and takes any, so that the plans of a
            network and of its twin differ in one word.

    Returns:
        The mixer, or None for `none`.

    Raises:
        UsageError: No mixer has this name, or it does not have one of the options.
    """
    if name not in MIXERS:
        raise unknown("mixer", name, MIXERS)
    path = MIXERS[name]
    if path is None:
        return None
    module, _, attribute = path.partition(":")
    mixer: type[Mixer] = getattr(import_module(module), attribute)
    known = set(inspect.signature(mixer).parameters) - {"channels", "spatial_dims"}
    _check_options(name, known, options)
    facts = {fact.name: getattr(place, fact.name) for fact in fields(place) if fact.name in known}
    return mixer(channels, spatial_dims=spatial_dims, **{**facts, **options})


def _check_options(name: str, known: set[str], options: dict[str, Any]) -> None:
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"mixer {name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}",
            code="unknown-mixer-option",
        )

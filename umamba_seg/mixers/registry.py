"""The mixers by name. Nothing is loaded until it is asked for."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from umamba_seg.errors import UsageError, unknown

if TYPE_CHECKING:
    from umamba_seg.mixers.mixer import Mixer

MIXERS: dict[str, str | None] = {
    "mamba": "umamba_seg.mixers.mamba:MambaMixer",
    "none": None,  # no module at all: the slot disappears, with its norm
}


def create(name: str, channels: int, *, spatial_dims: int, **options: Any) -> Mixer | None:
    """Build the mixer called `name`.

    Args:
        name: A key of `MIXERS`.
        channels: Channels of the feature map, the same in and out.
        spatial_dims: Spatial axes of the feature map.
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
    _check_options(name, mixer, options)
    return mixer(channels, spatial_dims=spatial_dims, **options)


def _check_options(name: str, mixer: type[Mixer], options: dict[str, Any]) -> None:
    known = set(inspect.signature(mixer).parameters) - {"channels", "spatial_dims"}
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"mixer {name!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}",
            code="unknown-mixer-option",
        )

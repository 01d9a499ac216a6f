"""What `from_reference` has to know of a published family of networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from umamba_seg.errors import ModelError, UsageError


def the_name(name: str) -> str:
    """The first name in families whose weights have one name each."""
    return name


@dataclass(frozen=True, slots=True)
class Published:
    """How the configurations and weights of one family are read.

    Args:
        network: The class that is built.
        arguments: Its keyword arguments, given a recorded configuration.
        first_name: The name that a weight has here too, given any of its published names.
    """

    network: Callable[..., nn.Module]
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    first_name: Callable[[str], str] = the_name


def check_keys(name: str, given: Mapping[str, Any], wanted: set[str]) -> None:
    """Refuse a recorded configuration, called `name`, with other keys than `wanted`.

    Raises:
        UsageError: A key is missing, or is not known.
    """
    missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
    if missing or unknown:
        faults = listed({"lacks": missing, "has unknown": unknown})
        raise UsageError(f"{name} {faults}", code="bad-config")


def check_weights(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], first_name: Callable[[str], str] = the_name
) -> None:
    """Refuse weights that do not fit a network.

    Args:
        wanted: The state_dict of the network.
        given: The weights, under all their names.
        first_name: See `Published`.

    Raises:
        ModelError: A weight is missing, is unexpected or has another shape.
    """
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if first_name(name) not in wanted]
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if missing or unexpected or misshapen:
        faults = listed({"lack": missing, "have unexpected": unexpected, "have other shapes:": misshapen})
        raise ModelError(f"the weights do not fit the network: they {faults}", code="bad-weights")


def listed(faults: Mapping[str, list[str]], shown: int = 5) -> str:
    """`lacks a, b, has unknown c and 7 more`: names by what is wrong with them."""
    parts = []
    for verb, names in faults.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        parts += [f"{verb} {', '.join(names[:shown])}{more}"] if names else []
    return ", ".join(parts)

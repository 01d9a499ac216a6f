"""What `from_reference` has to know of a published family of networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from umamba_seg.errors import ModelError, UsageError

ENTRIES = ("module", "state_dict", "model")  # under which files of weights alone have them
WRAPPERS = ("module.", "_orig_mod.")  # of DDP and torch.compile


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


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by the names that the network gives them, without the entry and the wrappers they may stand in.

    Raises:
        ModelError: There is more than weights.
    """
    entries = (state_dict.get(name) for name in ENTRIES)
    named: Mapping[str, Any] = next((entry for entry in entries if isinstance(entry, Mapping)), state_dict)
    strange = [name for name, value in named.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(f"the file holds more than weights: {', '.join(map(str, strange[:5]))}", code="bad-weights")
    for wrapper in WRAPPERS * 2:  # one may stand in the other
        if all(name.startswith(wrapper) for name in named):
            named = {name.removeprefix(wrapper): value for name, value in named.items()}
    return dict(named)


def tensor(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """One of the weights.

    Raises:
        ModelError: It is missing.
    """
    if name not in weights:
        raise ModelError(f"these weights are not complete: they lack {name}", code="bad-weights")
    return weights[name]


def count_of(weights: Mapping[str, Tensor], name: str, start: int = 0) -> int:
    """How many of the names that a number completes there are, counted from `start`."""
    n = 0
    while name.format(start + n) in weights:
        n += 1
    return n


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

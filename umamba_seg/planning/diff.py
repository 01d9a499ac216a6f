"""What differs between two plans, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORDS = {
    "patch_size": "patch",
    "batch_size": "batch",
    "data_identifier": "data",
    "median_image_size_in_voxels": "median image",
    "normalization_schemes": "normalisation",
    "use_mask_for_norm": "mask for normalisation",
    "batch_dice": "Dice over the batch",
    "architecture.network_class_name": "network",
    "architecture._kw_requires_import": "keywords to import",
    "foreground_intensity_properties_per_channel": "intensities",
    "transpose_forward": "order of axes",
    "image_reader_writer": "reader",
    "experiment_planner_used": "planner",
    "original_median_spacing_after_transp": "median spacing",
    "original_median_shape_after_transp": "median shape",
}
_SAID_ELSEWHERE = ("plans_name", "configurations", "transpose_backward")  # the last follows from transpose_forward


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two plans say differently.

    Args:
        configuration: Where; empty for what all configurations share.
        what: In a user's words.
        first: Its value in the first plans, None where they do not have it.
        second: The same of the second.
    """

    configuration: str
    what: str
    first: Any
    second: Any

    def __str__(self) -> str:
        place = f"{self.configuration}  " if self.configuration else ""
        return f"{place}{self.what}  {_told(self.what, self.first)} → {_told(self.what, self.second)}"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    """All that differs, inherited values included; names of the plans apart.

    Of two networks of different classes, what only one of them can be told is no difference.
    """
    found = list(_compare("", _without(first), _without(second)))
    configurations = [dict(_resolved(plans)) for plans in (first, second)]
    for name in dict.fromkeys([*configurations[0], *configurations[1]]):
        one, two = (own.get(name) for own in configurations)
        if one is None or two is None:
            found.append(Difference(name, "configuration", _presence(one), _presence(two)))
        else:
            found += _compare(name, *_comparable(one, two))
    return tuple(found)


def is_controlled(found: Sequence[Difference]) -> bool:
    """Whether only the networks differ, so that nothing else can explain a difference in their results."""
    return all(
        difference.what in ("planner", "keywords to import") or difference.what.split()[0] == "network"
        for difference in found
    )


def _without(plans: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plans.items() if key not in _SAID_ELSEWHERE}


def _resolved(plans: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    for name in plans["configurations"]:
        entry = dict(manager.get_configuration(name).configuration)
        block = dict(entry.pop("architecture"))
        entry |= {f"architecture.{key}": value for key, value in block.items() if key != "arch_kwargs"}
        entry |= {f"network {key}": value for key, value in block["arch_kwargs"].items()}
        yield name, entry


def _comparable(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same entries, without what only one of two network classes knows."""
    if one["architecture.network_class_name"] == two["architecture.network_class_name"]:
        return dict(one), dict(two)
    alone = {key for key in one.keys() ^ two.keys() if key.startswith("network ")} | {
        "architecture._kw_requires_import"
    }
    first, second = ({key: value for key, value in own.items() if key not in alone} for own in (one, two))
    return first, second


def _compare(configuration: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*one, *two]):
        first, second = one.get(key), two.get(key)
        if first != second:
            yield Difference(
                configuration, _WORDS.get(key, key.removeprefix("architecture ")).replace("_", " "), first, second
            )


def _presence(entry: object) -> str | None:
    return None if entry is None else "there"


def _told(what: str, value: Any) -> str:
    if value is None:
        return "none"
    if what == "network" and isinstance(value, str):
        return value.rpartition(".")[2]
    if isinstance(value, list) and value and all(isinstance(n, (int, float)) for n in value):
        return "×".join(f"{n:g}" if isinstance(n, float) else str(n) for n in value)
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"

"""Mending dataset.json, and the labels where it says how they are numbered."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.fix import voxels
from umamba_seg.datasets.fix.draft import DESCRIPTION, Draft
from umamba_seg.datasets.fix.names import is_known
from umamba_seg.datasets.fix.remedy import Step
from umamba_seg.datasets.intake import by_name, class_order

FILE = (DESCRIPTION,)
OLD_KEYS = ("modality", "training", "test", "numTest", "tensorImageSize")


def regenerate(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A description of what the files hold: channels and classes by number, for want of names."""
    ending = _ending(draft)
    if ending is None:
        return None

    def act() -> None:
        images = [x.name for x in (draft.folder / "imagesTr").iterdir() if x.name.endswith(ending)]
        numbers = {int(found[1]) for name in images if (found := re.search(r"_(\d{4})$", name.removesuffix(ending)))}
        files = [x for x in (draft.folder / "labelsTr").iterdir() if x.name.endswith(ending)]
        values = {int(v) for file in files for v in draft.facts(f"labelsTr/{file.name}", with_values=True).values}
        draft.replace_description(
            {
                "channel_names": {str(i): f"channel_{i}" for i in range(max(numbers, default=0) + 1)},
                "labels": {"background": 0} | {f"class_{value}": value for value in sorted(values - {0})},
                "numTraining": len(files),
                "file_ending": ending,
            }
        )

    return Step("dataset.json is made of what the files hold; give channels and classes their names", FILE, act)


def convert_old(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The format of nnU-Net 1 becomes that of version 2; what can be counted is filled in."""
    old = draft.description
    ending = old.get("file_ending") or _ending(draft)
    labels = old.get("labels")
    channels = old.get("channel_names", old.get("modality"))
    if ending is None or not isinstance(labels, Mapping) or not isinstance(channels, Mapping):
        return None
    made = {key: value for key, value in old.items() if key not in OLD_KEYS or "modality" not in old}
    made |= {"channel_names": dict(channels), "labels": by_name(labels), "file_ending": ending}
    made["numTraining"] = _count(draft, ending)
    if made == old:
        return None
    what = "converted from the format of nnU-Net 1" if "modality" in old else "what can be counted is filled in"
    return Step(f"dataset.json: {what}", FILE, lambda: draft.replace_description(made))


def _ending(draft: Draft) -> str | None:
    """That of all labels, or of most files."""
    names = [x.name for folder in ("labelsTr", "imagesTr") for x in _listed(draft, folder)]
    endings = Counter(name[-7:] if name.lower().endswith(".nii.gz") else name[name.rfind(".") :] for name in names)
    known = [ending for ending, _ in endings.most_common() if is_known(ending)]
    return known[0] if known else None


def _listed(draft: Draft, folder: str) -> list[Any]:
    path = draft.folder / folder
    return [x for x in path.iterdir() if not x.name.startswith(".")] if path.is_dir() else []


def _count(draft: Draft, ending: str) -> int:
    images = (x.name.removesuffix(ending) for x in _listed(draft, "imagesTr") if x.name.endswith(ending))
    return len({re.sub(r"_\d{4}$", "", stem) for stem in images})


def count_cases(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """numTraining is the number of cases."""
    cases = int(finding.expected or 0)
    if not cases or draft.description.get("numTraining") == cases:
        return None
    return Step(f"numTraining is {cases}, not {finding.found}", FILE, lambda: draft.describe(numTraining=cases))


def declare_channel(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A channel that all cases have gets a name."""
    names = draft.description.get("channel_names")
    if not isinstance(names, dict):
        return None
    number = len(names)
    if not all(draft.has(f"imagesTr/{case}_{number:04d}{draft.ending}") for case in draft.layout.images):
        return None
    made = names | {str(number): f"channel_{number}"}
    return Step(f"channel {number} is declared as channel_{number}", FILE, lambda: draft.describe(channel_names=made))


def number_channels(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Keys of channel_names count from 0."""
    names = draft.description.get("channel_names")
    if not isinstance(names, dict):
        return None
    are_numbers = all(str(key).isdecimal() for key in names)
    keys = sorted(names, key=int) if are_numbers else list(names)
    made = {str(i): names[key] for i, key in enumerate(keys)}
    if list(names) == list(made):
        return None
    return Step(
        f"the keys of channel_names are {', '.join(made)}", FILE, lambda: draft.describe(channel_names=made)
    )  # fmt: skip


def rename_ct(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A channel that means CT is named so."""
    names = draft.description.get("channel_names")
    if not isinstance(names, dict) or finding.found not in names.values():
        return None
    made = {key: "CT" if name == finding.found else name for key, name in names.items()}
    return Step(f"channel {finding.found!r} is named CT", FILE, lambda: draft.describe(channel_names=made))


def drop_reader(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """nnU-Net chooses the reader."""
    made = {key: value for key, value in draft.description.items() if key != "overwrite_image_reader_writer"}
    what = f"the unknown reader {finding.found!r} is left out; nnU-Net chooses one"
    return Step(what, FILE, lambda: draft.replace_description(made))


def turn_labels(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Names and values change places."""
    labels = draft.description.get("labels")
    if not isinstance(labels, dict):
        return None
    made = by_name(labels)
    if made == labels or len(made) != len(labels):
        return None
    return Step("names and values of labels change places", FILE, lambda: draft.describe(labels=made))


def renumber(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Values 0, 1, 2 … without gap in dataset.json and in all labels, background first and ignore last."""
    labels = draft.description.get("labels")
    made = renumbered(labels) if isinstance(labels, dict) else None
    if made is None:
        return None
    new_labels, mapping = made
    moved = {old: new for old, new in mapping.items() if old != new}
    found = {value for name in draft.label_names() for value in draft.facts(name, with_values=True).values}
    if (new_labels == labels and not moved) or (moved and found - set(mapping) - {0}):
        return None  # a value that nobody declared might get the number of a class
    order = draft.description.get("regions_class_order")
    files = tuple(draft.label_names()) if moved else ()

    def act() -> None:
        for name in files:
            voxels.change(draft, name, lambda array: voxels.relabel(array, moved))
        new_order = {"regions_class_order": [mapping.get(x, x) for x in order]} if isinstance(order, list) else {}
        draft.describe(labels=new_labels, **new_order)

    told = ", ".join(f"{old} is {new}" for old, new in moved.items()) or "background is 0"
    return Step(f"labels are numbered without gap: {told}", (*FILE, *files), act)


def renumbered(labels: Mapping[str, Any]) -> tuple[dict[str, Any], dict[float, int]] | None:
    """The labels with values without gap, and the new value of each old one; None where two names have one value."""
    classes = {name: _numbers(value) for name, value in labels.items() if name not in ("background", "ignore")}
    values = [x for found in classes.values() for x in found]
    ignore = _numbers(labels.get("ignore", []))
    has_regions = any(isinstance(value, list) for value in labels.values())
    if not all(classes.values()) or (not has_regions and len(set(values)) < len(values)):
        return None
    mapping: dict[float, int] = {old: new for new, old in enumerate(sorted(set(values) - {0}), 1)}
    background = _numbers(labels.get("background", 0))
    if len(ignore) > 1 or len(background) != 1 or 0 in values or set(background + ignore) & set(values):
        return None
    made: dict[str, Any] = {"background": 0}
    mapping = {background[0]: 0} | mapping
    for name, found in classes.items():
        new = [mapping[x] for x in found]
        made[name] = new if isinstance(labels[name], list) else new[0]
    if ignore:
        made["ignore"] = mapping[ignore[0]] = len(mapping)
    return made, mapping


def _numbers(value: Any) -> list[int]:
    return [int(x) for x in (value if isinstance(value, list) else [value]) if re.fullmatch(r"-?\d+", str(x))]


def order_regions(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Each region is written with a value that no later one has."""
    labels = draft.description.get("labels")
    if not isinstance(labels, dict):
        return None
    regions = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
    made = class_order(regions)
    if draft.description.get("regions_class_order") == made:
        return None
    return Step(f"regions_class_order is {made}", FILE, lambda: draft.describe(regions_class_order=made))


def larger_regions_first(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Regions stand after those that contain them."""
    labels, order = draft.description.get("labels"), draft.description.get("regions_class_order")
    names = list(finding.expected or ())
    if not isinstance(labels, dict) or not isinstance(order, list) or len(order) != len(names):
        return None
    before = [name for name in labels if name not in ("background", "ignore")]
    if sorted(before) != sorted(names):
        return None
    made = {"background": labels.get("background", 0)} | {name: labels[name] for name in names}
    made |= {"ignore": labels["ignore"]} if "ignore" in labels else {}
    written = dict(zip(before, order, strict=True))
    act = {"labels": made, "regions_class_order": [written[name] for name in names]}
    return Step(f"regions stand in the order {', '.join(names)}", FILE, lambda: draft.describe(**act))

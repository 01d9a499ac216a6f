"""What dataset.json says, apart from the files."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from umamba_seg.datasets.findings import Finding

FILE = ("dataset.json",)
CT_WORDS = re.compile(r"(?<![a-z])ct(?![a-z])|tomogra|hounsfield|\bhu\b", re.I)


def faults(content: Mapping[str, Any]) -> Iterator[Finding]:
    """All that is wrong with it."""
    from umamba_seg.datasets.check.layout import READERS, REQUIRED

    missing = [key for key in REQUIRED if key not in content]
    if missing:
        is_old = "modality" in content
        what = "this is the format of nnU-Net 1: " if is_old else ""
        message = f"{what}{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        yield Finding("json-keys", "error", message, files=FILE, found=sorted(content), mend="umamba import writes one")
    ending = content.get("file_ending")
    if isinstance(ending, str) and not ending.startswith("."):
        yield Finding(
            "file-ending", "error", f"file_ending is {ending!r}, without a dot", files=FILE, mend=f'set ".{ending}"'
        )
    yield from _channels(content.get("channel_names"))
    labels = content.get("labels")
    if isinstance(labels, Mapping):
        yield from _labels(labels, content.get("regions_class_order"))
    reader = content.get("overwrite_image_reader_writer")
    if reader is not None and reader not in READERS:
        message = f"{reader!r} is none of nnU-Net's readers"
        yield Finding(
            "json-reader",
            "warning",
            message,
            files=FILE,
            expected=list(READERS),
            found=reader,
            nnunet="prints one line and takes another reader",
        )


def _channels(channels: Any) -> Iterator[Finding]:
    if not isinstance(channels, Mapping):
        return
    wanted = [str(i) for i in range(len(channels))]
    if list(channels) != wanted:
        message = f"the keys of channel_names are {', '.join(channels)}"
        yield Finding("json-channels", "warning", message, files=FILE, expected=wanted, found=list(channels))
    for name in channels.values():
        if isinstance(name, str) and name != "CT" and CT_WORDS.search(name):
            message = f"channel {name!r} means CT, but only the name CT gets CT's normalisation"
            yield Finding(
                "ct-name", "warning", message, files=FILE, expected="CT", found=name, mend='rename it to "CT"'
            )


def _labels(labels: Mapping[str, Any], order: Any) -> Iterator[Finding]:
    if any(re.fullmatch(r"-?\d+", str(name)) for name in labels) and all(isinstance(x, str) for x in labels.values()):
        turned = {str(value): int(name) for name, value in labels.items() if re.fullmatch(r"-?\d+", str(name))}
        yield Finding(
            "json-labels",
            "error",
            "names and values are swapped",
            files=FILE,
            expected=turned,
            found=dict(labels),
            mend="write name: value",
        )
        return
    text = {name: value for name, value in labels.items() if not _is_values(value)}
    if text:
        yield Finding("json-labels", "error", f"these values are no integers: {text}", files=FILE, found=text)
        return
    ignore, regions = labels.get("ignore"), any(isinstance(value, list) for value in labels.values())
    if labels.get("background") != 0:
        found = labels.get("background", "missing")
        yield Finding(
            "json-labels", "error", f"background must be 0; it is {found}", files=FILE, expected=0, found=found
        )
    values = sorted({v for name, value in labels.items() if name != "ignore" for v in _values(value)})
    if values != list(range(len(values))):
        yield Finding(
            "json-labels",
            "error",
            f"the values are not 0, 1, 2 … without gap: {values}",
            files=FILE,
            expected=list(range(len(values))),
            found=values,
            mend="renumber labels and files",
        )
    if not regions:
        single = [value for value in labels.values() if isinstance(value, int)]
        doubled = sorted({value for value in single if single.count(value) > 1})
        if doubled:
            names = [name for name, value in labels.items() if value in doubled]
            message = f"{' and '.join(names)} have one value"
            yield Finding("json-labels", "error", message, files=FILE, found=doubled, nnunet="says nothing")
    if ignore is not None and (isinstance(ignore, list) or ignore != len(values)):
        message = f"ignore must be the highest value, {len(values)}; it is {ignore}"
        yield Finding("json-ignore", "error", message, files=FILE, expected=len(values), found=ignore)
    if regions:
        yield from _regions(labels, order)


def _regions(labels: Mapping[str, Any], order: Any) -> Iterator[Finding]:
    names = [name for name in labels if name not in ("background", "ignore")]
    if not isinstance(order, list):
        message = "labels are regions, so regions_class_order is needed: the value that each region is written with"
        yield Finding("json-regions", "error", message, files=FILE, expected=f"{len(names)} values", found=order)
        return
    if len(order) != len(names):
        message = f"regions_class_order has {len(order)} values for {len(names)} regions"
        yield Finding("json-regions", "error", message, files=FILE, expected=len(names), found=order)
        return
    known = {v for value in labels.values() for v in _values(value)}
    if strange := [value for value in order if value not in known]:
        yield Finding(
            "json-regions",
            "error",
            f"regions_class_order names values that no label has: {strange}",
            files=FILE,
            found=strange,
            nnunet="says nothing",
        )
    for later in range(len(names)):
        for earlier in range(later):
            inner, outer = set(_values(labels[names[earlier]])), set(_values(labels[names[later]]))
            if inner < outer:
                message = (
                    f"{names[later]} is written after {names[earlier]}, which it contains: "
                    f"{names[earlier]} never appears in predictions"
                )
                expected = sorted(names, key=lambda name: -len(_values(labels[name])))
                yield Finding(
                    "json-region-order",
                    "error",
                    message,
                    files=FILE,
                    expected=expected,
                    found=names,
                    nnunet="says nothing",
                    mend="list larger regions first, in labels and in regions_class_order",
                )
                return


def _is_values(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_values(x) and not isinstance(x, list) for x in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _values(value: Any) -> list[int]:
    return list(value) if isinstance(value, list) else [value]

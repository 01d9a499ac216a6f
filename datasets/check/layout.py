"""Names, links and dataset.json: what there is, before any image is opened."""

import difflib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umamba_seg.datasets.check import paths
from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.pictures import ENDINGS as PICTURES

REQUIRED = ("channel_names", "labels", "numTraining", "file_ending")
READERS = (
    "SimpleITKIO",
    "SimpleITKIOWithReorient",
    "NibabelIO",
    "NibabelIOWithReorient",
    "Tiff3DIO",
    "NaturalImage2DIO",
)
IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini"}
SIDE_CARS = (".json",)
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".gipl", ".dcm")
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{i}" for name in ("COM", "LPT") for i in range(1, 10))}
LONGEST_NAME = 120


@dataclass(slots=True)
class Layout:
    """The files of a data set by case, and what is wrong with their names.

    Args:
        folder: Of the data set.
        description: dataset.json, empty where it cannot be read.
        ending: Of all images and labels.
        channels: Names of the channels, in order.
        images: By case, the file of each channel number.
        labels: By case.
    """

    folder: Path
    description: Mapping[str, Any] = field(default_factory=dict)
    ending: str = ""
    channels: tuple[str, ...] = ()
    images: dict[str, dict[int, Path]] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """A path as findings name it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else path.name


def look(folder: Path) -> Layout:
    """List a data set's files and check everything that names tell."""
    layout = Layout(folder)
    say = layout.findings.append
    if not re.fullmatch(r"Dataset\d{3}_.+", folder.name):
        say(_error("folder", f"the folder is named {folder.name}", mend="name it as in Dataset012_Liver"))
    _description(layout)
    if paths.is_named(layout.description):
        layout.findings.extend(paths.take(folder, layout.description["dataset"], layout.images, layout.labels))
    else:
        for name in ("imagesTr", "labelsTr"):
            layout.findings.extend(_folder_faults(folder / name))
        _files(layout)
    _pairs(layout)
    return layout


def _error(code: str, message: str, **more: Any) -> Finding:
    return Finding(code, "error", message, **more)


def _warning(code: str, message: str, **more: Any) -> Finding:
    return Finding(code, "warning", message, **more)


def _description(layout: Layout) -> None:
    file, say = layout.folder / "dataset.json", layout.findings.append
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_keeping_doubles)
    except FileNotFoundError:
        say(
            _error(
                "json-unreadable", "dataset.json is missing", files=("dataset.json",), mend="umamba import writes one"
            )
        )
        return
    except UnicodeDecodeError as fault:
        say(_error("json-unreadable", f"dataset.json is not UTF-8: byte {fault.start}", files=("dataset.json",)))
        return
    except json.JSONDecodeError as fault:
        line = fault.doc.splitlines()[fault.lineno - 1].strip() if fault.doc.strip() else ""
        message = f"dataset.json, line {fault.lineno}, column {fault.colno}: {fault.msg}; there stands {line[:60]!r}"
        say(_error("json-unreadable", message, files=("dataset.json",), mend="mend the JSON at that place"))
        return
    if not isinstance(content, dict):
        say(_error("json-unreadable", "dataset.json holds no object { … }", files=("dataset.json",)))
        return
    layout.description = content
    ending = str(content.get("file_ending", ""))
    layout.ending = f".{ending}" if ending and not ending.startswith(".") else ending  # told by itself; names go on
    from umamba_seg.datasets.check.description import faults

    layout.findings.extend(faults(content))
    channels = content.get("channel_names")
    if isinstance(channels, dict):
        layout.channels = tuple(str(name) for name in channels.values())


class Doubled(dict[str, Any]):
    """An object in which a key stood twice."""


def _keeping_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Doubled(made)


def _folder_faults(folder: Path) -> Iterator[Finding]:
    name = folder.name
    if not folder.is_dir():
        yield _error("folder", f"{name} is missing", files=(name,), mend=f"put the files into {name}")
        return
    entries = [entry for entry in folder.iterdir() if entry.name not in IGNORED]
    if not entries:
        yield _error("folder", f"{name} is empty", files=(name,))
    elif all(entry.is_dir() for entry in entries):
        inside = ", ".join(sorted(entry.name for entry in entries)[:3])
        yield _error(
            "folder", f"{name} holds only folders: {inside}", files=(name,), mend="move their files one level up"
        )


def look_at_tests(layout: Layout, folder: Path) -> Layout:
    """List a folder of images without labels as the data set that `layout` describes would have them."""
    tests = Layout(folder.parent, layout.description, layout.ending, layout.channels)
    tests.findings.extend(_folder_faults(folder))
    if layout.ending:
        _list(tests, folder, None, is_label=False)
    unread = _unread(tests)
    for case in sorted(tests.images):
        _channels(tests, case, unread)
    return tests


def _files(layout: Layout) -> None:
    if not layout.ending:
        return
    labels = {path.name.removesuffix(layout.ending) for path in (layout.folder / "labelsTr").glob("*")}
    for name, is_label in (("imagesTr", False), ("labelsTr", True)):
        _list(layout, layout.folder / name, labels, is_label=is_label)


def _list(layout: Layout, folder: Path, labels: Collection[str] | None, *, is_label: bool) -> None:
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    _endings(layout, [entry for entry in entries if not entry.is_dir()], folder.name)
    for entry in entries:
        if entry.is_dir() or entry.name in IGNORED or not entry.name.endswith(layout.ending):
            continue
        if fault := _link_or_permission(layout, entry) or _stray(layout, entry):
            layout.findings.append(fault)
            continue
        _take(layout, entry, labels, is_label=is_label)


def _endings(layout: Layout, entries: list[Path], name: str) -> None:
    """Files of other endings than the declared one."""
    regular = [entry for entry in entries if entry.name not in IGNORED and not entry.name.startswith("._")]
    others = [entry for entry in regular if not entry.name.endswith(layout.ending)]
    images = [entry for entry in others if not entry.name.endswith(SIDE_CARS)]
    if not images:
        return
    if not any(entry.name.endswith(layout.ending) for entry in regular):
        most = _ending_of(images[0])
        layout.findings.append(
            _error(
                "file-ending",
                f"no file in {name} ends in {layout.ending!r}; they end in {most!r}",
                files=(f"{name}",),
                expected=layout.ending,
                found=most,
                mend=f'set "file_ending": "{most}"',
            )
        )
        return
    for entry in images:
        ending = _ending_of(entry)
        looks_like_image = ending.lower() in (*VOLUMES, *PICTURES)
        case = _case_of(entry.name, ending, is_label=name == "labelsTr")
        layout.findings.append(
            _error(
                "file-ending",
                f"it ends in {ending!r}, the others in {layout.ending!r}",
                cases=(case,),
                files=(layout.relative(entry),),
                expected=layout.ending,
                found=ending,
                mend="convert it, or take it out",
            )
            if looks_like_image
            else _warning(
                "stray-file", "it is no image", files=(layout.relative(entry),), mend="move it out of the folder"
            )
        )


def _ending_of(path: Path) -> str:
    lower = path.name.lower()
    return path.name[-7:] if lower.endswith(".nii.gz") else path.suffix


def _case_of(name: str, ending: str, *, is_label: bool) -> str:
    stem = name.removesuffix(ending)
    return stem if is_label else re.sub(r"_\d{4}$", "", stem)


def _link_or_permission(layout: Layout, entry: Path) -> Finding | None:
    case, files = (
        _case_of(entry.name, layout.ending, is_label=entry.parent.name == "labelsTr"),
        (layout.relative(entry),),
    )
    if entry.is_symlink():
        try:
            target = entry.resolve(strict=True)
        except FileNotFoundError:
            return _error(
                "link-broken", f"the link leads to {os.readlink(entry)}, which is not there", cases=(case,), files=files
            )
        except (OSError, RuntimeError):
            return _error("link-broken", "the link leads back to itself", cases=(case,), files=files)
        entry = target
    if not os.access(entry, os.R_OK):
        status = entry.stat()
        message = f"it may not be read: mode {status.st_mode & 0o777:o}, owner {status.st_uid}"
        return _error("permission", message, cases=(case,), files=files, mend="chmod u+r, or ask its owner")
    return None


def _stray(layout: Layout, entry: Path) -> Finding | None:
    what = None
    if entry.name.startswith("._"):
        what = "it is a side file that macOS leaves, no image"
    elif re.search(r" \(\d+\)|[ _-](copy|backup|bak)\b|~", entry.name, re.I):
        what = "it looks like a copy of another file"
    if what is None:
        return None
    return _error(
        "stray-file",
        what,
        files=(layout.relative(entry),),
        nnunet="counts it as a case",
        mend="move it out of the folder",
    )


def _take(layout: Layout, entry: Path, labels: Collection[str] | None, *, is_label: bool) -> None:
    """Put a file where its name says; `labels` tells which cases there are, None that nobody knows."""
    stem = entry.name.removesuffix(layout.ending)
    if is_label:
        layout.labels[stem] = entry
        return
    found = re.fullmatch(r"(.+)_(\d{4})", stem)
    if found is None or (labels is not None and found[1] not in labels and _is_odd(layout, stem, found, labels)):
        channels = "_0000" if len(layout.channels) <= 1 else "_NNNN, NNNN the channel"
        right = f"{_right_stem(stem, labels or ())}{layout.ending}"
        layout.findings.append(
            _error(
                "channel-suffix",
                f"its name does not end in {channels} once",
                cases=(stem,),
                files=(layout.relative(entry),),
                expected=right,
                found=entry.name,
                nnunet="cuts five characters off blindly",
                mend=f"rename it to {right}",
            )
        )
        return
    layout.images.setdefault(found[1], {})[int(found[2])] = entry


def _is_odd(layout: Layout, stem: str, found: re.Match[str], labels: Collection[str]) -> bool:
    """Whether a number at the end is none of a channel: it stands twice, or belongs to the case's name."""
    is_beyond = int(found[2]) >= max(1, len(layout.channels))
    return re.fullmatch(r".+_\d{4}", found[1]) is not None or (stem in labels and is_beyond)


def _right_stem(stem: str, labels: Collection[str]) -> str:
    """The name that an image should have: a case that has a label, and the channel that the name tells, or 0."""
    if stem in labels:
        return f"{stem}_0000"
    numbered = re.fullmatch(r"(.+?)(?:_\d{4})*_(\d{1,4})", stem)
    return f"{stem}_0000" if numbered is None else f"{numbered[1]}_{int(numbered[2]):04d}"


def _pairs(layout: Layout) -> None:
    """Cases whose files do not fit together, and names that other systems lose."""
    _label_suffixes(layout)
    unread, cases = _unread(layout), sorted(layout.images)
    for case in cases:
        _channels(layout, case, unread)
        if case not in layout.labels and case not in unread:
            layout.findings.append(_missing_label(layout, case))
    _orphans(layout, unread)
    _count(layout, len(set(cases) | unread))
    for case in cases:
        if why := _awkward(case):
            mend = "letters, digits, dot, _ and - are safe"
            layout.findings.append(_warning("name-awkward", f"the name {why}", cases=(case,), mend=mend))
    layout.findings.extend(_collisions(cases))


def _label_suffixes(layout: Layout) -> None:
    """Labels that are named as an image's channel; they are taken for the case's all the same."""
    suffixed = {re.sub(r"_\d{4}$", "", name): name for name in layout.labels if re.search(r"_\d{4}$", name)}
    for case, label in suffixed.items():
        if case not in layout.images or case in layout.labels:
            continue
        path = layout.labels[case] = layout.labels.pop(label)
        layout.findings.append(
            _error(
                "channel-suffix",
                "a label's name ends in a channel number",
                cases=(case,),
                files=(layout.relative(path),),
                expected=f"{case}{layout.ending}",
                mend="rename it",
            )
        )


def _missing_label(layout: Layout, case: str) -> Finding:
    near = difflib.get_close_matches(case, set(layout.labels) - set(layout.images), n=1)
    hint = f"; the nearest label is {near[0]}" if near else ""
    files = (f"labelsTr/{case}{layout.ending}",)
    return _error("label-missing", f"the image has no label{hint}", cases=(case,), files=files)


def _orphans(layout: Layout, unread: Collection[str]) -> None:
    """Take labels without image out, and tell those whose image was not found at fault before."""
    for case in sorted(set(layout.labels) - set(layout.images)):
        files = (layout.relative(layout.labels.pop(case)),)
        if case not in unread:
            message = "the label has no image"
            layout.findings.append(
                _warning("label-orphan", message, cases=(case,), files=files, nnunet="ignores it")
            )  # fmt: skip


def _count(layout: Layout, cases: int) -> None:
    declared = layout.description.get("numTraining")
    if isinstance(declared, int) and layout.images and declared != cases:
        message = f"numTraining is {declared}, there are {cases} cases"
        layout.findings.append(
            _error("json-count", message, files=("dataset.json",), expected=cases, found=declared)
        )  # fmt: skip


def _unread(layout: Layout) -> set[str]:
    """Cases of which a file is there but at fault, so that it is not missed as well."""
    by_case = [x for x in layout.findings if x.code in ("link-broken", "permission", "file-ending")]
    renamed = [str(x.expected).removesuffix(layout.ending) for x in layout.findings if x.code == "channel-suffix"]
    return {case for x in by_case for case in x.cases} | {re.sub(r"_\d{4}$", "", stem) for stem in renamed}


def _channels(layout: Layout, case: str, unread: Collection[str]) -> None:
    """Channels that a case lacks or has too many."""
    wanted, have = range(max(1, len(layout.channels))), layout.images[case]
    for number in () if _may_hold_colours(layout, have) or case in unread else wanted:
        if number not in have:
            layout.findings.append(_missing_channel(layout, case, number))
    for number in sorted(set(have) - set(wanted)):
        path = have.pop(number)
        message = f"channel {number} is not declared: there are {len(wanted)}"
        layout.findings.append(_error("channel-extra", message, cases=(case,), files=(layout.relative(path),)))


def _may_hold_colours(layout: Layout, have: Collection[int]) -> bool:
    """Whether the one picture of a case may hold all channels, as RGB does."""
    return layout.ending.lower() in PICTURES and set(have) == {0} and len(layout.channels) in (3, 4)


def _missing_channel(layout: Layout, case: str, number: int) -> Finding:
    name = layout.channels[number] if number < len(layout.channels) else str(number)
    folder = next((path.parent.name for path in layout.images[case].values()), "imagesTr")
    path = f"{folder}/{case}_{number:04d}{layout.ending}"
    return _error("channel-missing", f"channel {number} ({name}) is missing", cases=(case,), files=(path,))


def _awkward(case: str) -> str | None:
    if len(case) > LONGEST_NAME:
        return f"has {len(case)} characters"
    if case.startswith("-"):
        return "begins with a dash, which programs take for an option"
    if case.split(".")[0].upper() in RESERVED:
        return "is reserved on Windows"
    if odd := re.search(r"[^A-Za-z0-9._-]", case):
        return f"has the character {odd[0]!r}"
    return None


def _collisions(cases: list[str]) -> Iterator[Finding]:
    by_key: dict[str, list[str]] = {}
    for case in cases:
        by_key.setdefault(unicodedata.normalize("NFC", case).casefold(), []).append(case)
    for names in by_key.values():
        if len(names) > 1:
            message = f"{' and '.join(names)} differ in a way that some file systems lose"
            yield _warning("name-collision", message, cases=tuple(names), mend="rename one")

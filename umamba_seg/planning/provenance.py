"""What preprocessed data were made from and how, so that they are used again only while that is still true.

nnU-Net keeps no such note. Ours lies beside the folders of the data, in which nnU-Net allows no further file. A folder
that nnU-Net filled, or touched after us, has none; there we look at what it shows.
"""

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umamba_seg.files import write_text
from umamba_seg.run_record import sha256
from umamba_seg.workspace import Dataset, read_json

FILE = "umamba_preprocessed.json"
_FEW = 3


@dataclass(slots=True)
class Notes:
    """The content of the file.

    Args:
        path: The file.
        raw: The folder of the raw data.
        files: Of each raw file its size, time of change and hash.
        fingerprint: Of each case what the fingerprint saw, by the hash of its files.
        folders: Of each data identifier its `settings`, and of each case `made_from` and the time of its last file.
    """

    path: Path
    raw: Path
    files: dict[str, list[Any]] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, dataset: Dataset) -> "Notes":
        """The notes on a data set; empty where there are none."""
        path = dataset.preprocessed / FILE
        content: dict[str, Any] = read_json(path) if path.is_file() else {}
        return cls(path, dataset.raw, *(content.get(name, {}) for name in ("files", "fingerprint", "folders")))

    def write(self) -> None:
        """Put the notes beside the data."""
        content = {"files": self.files, "fingerprint": self.fingerprint, "folders": self.folders}
        write_text(self.path, json.dumps(content))

    def content_of(self, case: Mapping[str, Any]) -> str:
        """A text that changes with the content of a case's raw files; they are read only where they look changed."""
        return " ".join(self._hash(Path(file)) for file in (*case["images"], case["label"]))

    def _hash(self, file: Path) -> str:
        state = file.stat()
        name = os.path.relpath(file, self.raw)
        size, changed, known = self.files.get(name, [None, None, ""])
        if (size, changed) != (state.st_size, state.st_mtime_ns):
            known = sha256(file)[:16]
            self.files[name] = [state.st_size, state.st_mtime_ns, known]
        return str(known)


def settings_of(plans: Mapping[str, Any], entry: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides on preprocessed data, beside the images, in words that a user knows."""
    resampling = [entry[f"resampling_fn_{what}{part}"] for what in ("data", "seg") for part in ("", "_kwargs")]
    made = {
        "spacing": entry["spacing"],
        "axes": plans["transpose_forward"],
        "normalisation": [entry["normalization_schemes"], entry["use_mask_for_norm"]],
        "intensities": _intensities(plans, entry),
        "resampling": resampling,
        "preprocessor": entry["preprocessor_name"],
        "reader": plans["image_reader_writer"],
        "labels": [dataset_json.get("labels"), dataset_json.get("regions_class_order")],
    }
    settings: dict[str, Any] = json.loads(json.dumps(made))
    return settings


def _intensities(plans: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of the channels that are normalised with those of the whole data set."""
    of_channels = plans["foreground_intensity_properties_per_channel"]
    return {
        str(channel): of_channels[str(channel)]
        for channel, scheme in enumerate(entry["normalization_schemes"])
        if scheme == "CTNormalization"
    }


@dataclass(frozen=True, slots=True)
class Findings:
    """What a folder of preprocessed data lacks and what speaks against it.

    Args:
        missing: Cases of the raw data that are not there, or not whole.
        against: Why what is there must not be used, one sentence each.
        remarks: What nobody can tell from the folder.
    """

    missing: tuple[str, ...]
    against: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def examine(
    folder: Path,
    cases: Mapping[str, Mapping[str, Any]],
    plans: Mapping[str, Any],
    entry: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    notes: Notes,
) -> Findings:
    """Compare a folder with the raw data and the plans."""
    there = {case for case in cases if is_whole(folder, case)}
    missing = tuple(case for case in cases if case not in there)
    against = _strangers(folder, cases)
    wanted = settings_of(plans, entry, dataset_json)
    note = notes.folders.get(folder.name, {"settings": {}, "cases": {}})
    told = [case for case in there if _is_as_noted(folder, case, note)]
    untold = sorted(there.difference(told))
    if told:
        against += [
            f"it was made with other {name}: {_short(note['settings'].get(name))}, now {_short(wanted[name])}"
            for name in wanted
            if note["settings"].get(name) != wanted[name]
        ]
        changed = [case for case in told if note["cases"][case]["made_from"] != notes.content_of(cases[case])]
        if changed:
            against.append(f"the images or labels of {named(sorted(changed))} have changed since")
    remarks: list[str] = []
    if untold:
        against += _contradictions(folder, untold, plans, entry)
        against += _other_plans(folder, plans["plans_name"], wanted, dataset_json) if not told else []
        remarks += _remarks_on_untold(folder, untold, cases)
    return Findings(missing, tuple(against), tuple(remarks))


def note_on(notes: Notes, folder: Path, case: str, made_from: str, settings: Mapping[str, Any]) -> None:
    """Write down how a case was made."""
    note = notes.folders.setdefault(folder.name, {"settings": settings, "cases": {}})
    note["settings"] = settings
    note["cases"][case] = {"made_from": made_from, "finished": _finished(folder, case)}


def is_whole(folder: Path, case: str) -> bool:
    """Whether all files of a case are there; nnU-Net writes the one with the properties last."""
    parts = [f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"]
    return all((folder / part).is_file() for part in parts) or (
        (folder / f"{case}.npz").is_file() and (folder / f"{case}.pkl").is_file()
    )


def named(cases: Sequence[str]) -> str:
    """The first few cases by name, and how many more."""
    more = f" and {len(cases) - _FEW} more" if len(cases) > _FEW else ""
    return ", ".join(cases[:_FEW]) + more


def _is_as_noted(folder: Path, case: str, note: Mapping[str, Any]) -> bool:
    return case in note["cases"] and note["cases"][case]["finished"] == _finished(folder, case)


def _finished(folder: Path, case: str) -> int:
    return (folder / f"{case}.pkl").stat().st_mtime_ns


def _strangers(folder: Path, cases: Mapping[str, Any]) -> list[str]:
    """Cases that the raw data do not have (any more): nnU-Net would train on them."""
    found = {file.stem for file in folder.glob("*.pkl")}
    strangers = sorted(found.difference(cases))
    return [f"it holds cases that the raw data do not have: {named(strangers)}"] if strangers else []


def _contradictions(
    folder: Path, cases: Sequence[str], plans: Mapping[str, Any], entry: Mapping[str, Any]
) -> list[str]:
    """What the sizes in the folder say against the spacing and the axes of the plans."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    for case in dict.fromkeys((cases[0], cases[len(cases) // 2], cases[-1])):
        if not (folder / f"{case}.b2nd").is_file():
            continue
        try:
            shape, properties = _shape(folder / f"{case}.b2nd"), pickle.loads((folder / f"{case}.pkl").read_bytes())
            before = [int(n) for n in properties["shape_after_cropping_and_before_resampling"]]
            spacing = [properties["spacing"][axis] for axis in plans["transpose_forward"]]
        except (EOFError, KeyError, RuntimeError, OSError, pickle.UnpicklingError):
            return [f"{case} cannot be read"]
        target = [spacing[0], *entry["spacing"]] if len(entry["spacing"]) == 2 else entry["spacing"]
        wanted = [len(entry["normalization_schemes"]), *(int(n) for n in compute_new_shape(before, spacing, target))]
        if shape != wanted:
            sizes = ["×".join(map(str, size)) for size in (shape, wanted)]
            what = f"{case} has the size {sizes[0]} where these plans make {sizes[1]}"
            return [f"it was made with another spacing, other axes or channels: {what}"]
    return []


def _shape(file: Path) -> list[int]:
    import blosc2

    return [int(n) for n in blosc2.open(urlpath=str(file), mode="r").shape]


def _other_plans(
    folder: Path, plans_name: str, wanted: Mapping[str, Any], dataset_json: Mapping[str, Any]
) -> list[str]:
    """Plans that name the same folder and would fill it otherwise, unless others would fill it as ours do."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    found = []
    for file in sorted(folder.parent.glob("*.json")):
        other: dict[str, Any] = read_json(file)
        if file.stem == plans_name or not {"configurations", "transpose_forward"} <= other.keys():
            continue
        for name, own in other["configurations"].items():
            if own.get("data_identifier") == folder.name:
                entry = PlansManager(other).get_configuration(name).configuration
                settings = settings_of(other, entry, dataset_json)
                differing = [key for key in wanted if settings[key] != wanted[key]]
                if not differing:
                    return []
                found.append(f"{file.stem} makes it with other {' and '.join(differing)}")
    return found


def _remarks_on_untold(folder: Path, cases: Sequence[str], raw: Mapping[str, Mapping[str, Any]]) -> list[str]:
    newer = [
        case
        for case in cases
        if any(
            Path(file).stat().st_mtime_ns > _finished(folder, case)
            for file in (*raw[case]["images"], raw[case]["label"])
        )
    ]
    remarks = ["nnU-Net made it and keeps no note of how; nothing that can be seen speaks against these plans"]
    if newer:
        remarks.append(
            f"raw files of {named(newer)} are newer than what was made of them; if they have changed, --overwrite"
        )
    return remarks


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"

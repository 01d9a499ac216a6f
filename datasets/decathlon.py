"""A task of the Medical Segmentation Decathlon: its list of cases, its names, its images with a fourth axis."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umamba_seg.datasets.intake import ENDINGS, Pairs, by_name
from umamba_seg.errors import DataError

NOT_OURS = ("modality", "training", "test", "labels", "numTraining", "numTest", "tensorImageSize")


def is_task(folder: Path, description: Mapping[str, Any]) -> bool:
    """Whether a folder with this dataset.json is a task; nnU-Net 1 wrote a similar one, with other file names."""
    cases = description.get("training")
    if "modality" not in description or "file_ending" in description or not isinstance(cases, list) or not cases:
        return False
    return isinstance(cases[0], Mapping) and (folder / str(cases[0].get("image"))).is_file()


def number_and_name(folder: Path) -> tuple[int | None, str]:
    """Those in a folder's name, such as Task04_Hippocampus."""
    found = re.fullmatch(r"Task0*(\d{1,3})_(.+)", folder.resolve().name)
    return (int(found[1]), found[2]) if found and int(found[1]) else (None, folder.resolve().name)


def read(folder: Path, description: Mapping[str, Any]) -> tuple[Pairs, dict[str, Any]]:
    """The cases of a task, and their dataset.json as nnU-Net wants it.

    Args:
        folder: Of the task.
        description: Its dataset.json.
    """
    file = folder / "dataset.json"
    channels, labels = description.get("modality"), description.get("labels")
    if not isinstance(channels, Mapping) or not channels or not isinstance(labels, Mapping):
        raise DataError('"modality" and "labels" are needed', where=str(file), code="no-decathlon")
    entries = _entries(description.get("training"), file)
    ending = _ending([image for image, _ in entries], file)
    images = {_case(image, ending): [_there(folder, image)] for image, _ in entries}
    if len(images) < len(entries):
        raise DataError("the list of training names a case twice", where=str(file), code="same-case")
    tests = [str(path) for path in description.get("test") or () if _is_inside(str(path))]
    pairs = Pairs(
        ending,
        images,
        {_case(image, ending): _there(folder, label) for image, label in entries},
        split=len(channels),
        tests={_case(x, ending): [folder / x] for x in tests if x.endswith(ending) and (folder / x).is_file()},
    )
    made = {key: value for key, value in description.items() if key not in NOT_OURS}
    made |= {
        "channel_names": {str(i): channels[key] for i, key in enumerate(sorted(channels, key=_as_number))},
        "labels": _in_order(by_name(labels)),
        "numTraining": len(images),
        "file_ending": ending,
    }
    return pairs, made


def _entries(training: Any, file: Path) -> list[tuple[str, str]]:
    if not isinstance(training, list) or not training:
        raise DataError('it has no list "training"', where=str(file), code="no-decathlon")
    found = [(entry.get("image"), entry.get("label")) for entry in training if isinstance(entry, Mapping)]
    entries = [(image, label) for image, label in found if isinstance(image, str) and isinstance(label, str)]
    if len(entries) < len(training):
        what = 'an entry of "training" is not {"image": …, "label": …}'
        raise DataError(what, where=str(file), code="no-decathlon")
    return entries


def _ending(images: Sequence[str], file: Path) -> str:
    found = {next((ending for ending in ENDINGS if path.endswith(ending)), path) for path in images}
    if len(found) != 1 or not found <= set(ENDINGS):
        what = f"images end in {' and '.join(sorted(found)[:3])}"
        raise DataError(what, where=str(file), how=["nnU-Net needs one ending"], code="file-ending")
    return next(iter(found))


def _case(path: str, ending: str) -> str:
    return Path(path).name.removesuffix(ending)


def _there(folder: Path, path: str) -> Path:
    """A file of the list, which must lie in the folder: a list from elsewhere could name any file of the machine."""
    found = folder / path
    if not _is_inside(path):
        raise DataError(
            f"it names {path}, outside the task's folder", where=str(folder / "dataset.json"), code="outside"
        )
    if not found.is_file():
        how = ["unpack or fetch the task again"]
        raise DataError("dataset.json names a file that is not there", where=str(found), how=how, code="json-paths")
    return found


def _is_inside(path: str) -> bool:
    return not Path(path).is_absolute() and ".." not in Path(path).parts


def _in_order(labels: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(labels.items(), key=lambda item: item[1] if isinstance(item[1], int) else 0))


def _as_number(key: str) -> int:
    return int(key) if str(key).isdecimal() else 0

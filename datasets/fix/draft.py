"""The copy of a data set while it is mended. A file that changes replaces its link; nothing is written through it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from umamba_seg.datasets.check.facts import FileFacts, measure
from umamba_seg.datasets.check.layout import IGNORED, look
from umamba_seg.errors import DataError
from umamba_seg.files import told_when_full, write_text

DESCRIPTION = "dataset.json"
DEEPEST = 4


class Draft:
    """A data set's folder and what mending needs to know of it.

    Args:
        folder: Of the copy; of the source where nothing is to be changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.layout = folder, look(folder)
        self.ending = self.layout.ending

    @property
    def description(self) -> dict[str, Any]:
        """dataset.json as it is now; empty where it cannot be read."""
        try:
            content = json.loads((self.folder / DESCRIPTION).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def describe(self, **changes: Any) -> None:
        """Set keys of dataset.json."""
        self.replace_description(self.description | changes)

    def replace_description(self, content: dict[str, Any]) -> None:
        """Write dataset.json anew."""
        write_text(self.folder / DESCRIPTION, json.dumps(content, indent=1))

    @property
    def values(self) -> list[int]:
        """The values that dataset.json declares."""
        labels = self.description.get("labels")
        found: set[int] = set()
        for value in labels.values() if isinstance(labels, dict) else ():
            found |= {x for x in (value if isinstance(value, list) else [value]) if isinstance(x, int)}
        return sorted(found)

    def has(self, *names: str) -> bool:
        """Whether all these files are there."""
        return all((self.folder / name).is_file() for name in names)

    def facts(self, name: str, *, with_values: bool = False) -> FileFacts:
        """What a file holds."""
        return measure(self.folder / name, with_values, is_label=name.startswith("labels"))[0]

    def label_names(self) -> list[str]:
        """All labels."""
        return sorted(f"labelsTr/{x.name}" for x in _files(self.folder / "labelsTr") if x.name.endswith(self.ending))

    def files_of(self, case: str) -> list[str]:
        """Images, label and side-cars of a case."""
        pattern = re.compile(rf"{re.escape(case)}(_\d{{4}})?({re.escape(self.ending)}|\.json)")
        return sorted(
            f"{name}/{path.name}"
            for name in ("imagesTr", "labelsTr")
            for path in _files(self.folder / name)
            if pattern.fullmatch(path.name)
        )

    def remove(self, *names: str) -> None:
        """Leave files out."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        """Give a file of the copy another name."""
        (self.folder / old).rename(self.folder / new)

    def rename_case(self, old: str, new: str) -> None:
        """Give all files of a case another name, in dataset.json too."""
        for name in self.files_of(old):
            folder, _, file = name.partition("/")
            self.rename(name, f"{folder}/{new}{file.removeprefix(old)}")
        patients = self.description.get("patients")
        if isinstance(patients, dict) and old in patients:
            self.describe(patients={new if case == old else case: who for case, who in patients.items()})


def copy_tree(source: Path, target: Path, *, links: bool) -> None:
    """Make a folder whose files lead to those of `source`, or are copies of them."""
    with told_when_full(target):
        _copy_folder(source, target, links, DEEPEST)


def _copy_folder(source: Path, target: Path, links: bool, depth: int) -> None:
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            if depth:
                _copy_folder(entry, target / entry.name, links, depth - 1)
        elif links or not entry.exists():  # a link that leads nowhere stays one
            (target / entry.name).symlink_to(entry.resolve() if entry.exists() else entry.readlink())
        else:
            _copy_file(entry, target / entry.name)


def _copy_file(source: Path, target: Path) -> None:
    try:
        shutil.copy2(source, target)
    except PermissionError:
        how = ["chmod u+r, or leave --copy out"]
        raise DataError("the file may not be read", where=str(source), how=how, code="permission") from None


def _files(folder: Path) -> list[Path]:
    return [x for x in folder.iterdir() if not x.is_dir() and x.name not in IGNORED] if folder.is_dir() else []

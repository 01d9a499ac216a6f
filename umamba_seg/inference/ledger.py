"""`predictions.csv`: what became of every case, and the proof that a label map need not be made again."""

import csv
import io
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from umamba_seg.files import write_text
from umamba_seg.run_record import sha256

FILE = "predictions.csv"


@dataclass(frozen=True, slots=True)
class Entry:
    """One case.

    Args:
        case: Its name.
        state: `done` or `failed`.
        file: The label map, relative to the table.
        seconds: How long it took.
        reason: Why it failed.
        images: Hash of its files.
        method: Hash of the model and of the options that change label maps.
        labels: Hash of the label map, noted before the file has its name: a kill between the two proves nothing wrong.
        remarks: What is unusual about it.
    """

    case: str
    state: str
    file: str = ""
    seconds: float = 0.0
    reason: str = ""
    images: str = ""
    method: str = ""
    labels: str = ""
    time: str = ""
    remarks: str = ""


class Ledger:
    """The table in a folder of label maps, written anew after every case: a kill loses the case in hand only.

    Args:
        folder: Where label maps and table are.
        part: `2/5` where several machines share the folder: each writes a table of its own, all are read.
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        self.file = folder / (FILE if part is None else FILE.replace(".", f".{part.replace('/', '-of-')}.", 1))
        others = [file for file in folder.glob(FILE.replace(".", "*.")) if file != self.file]
        self.others = {entry.case: entry for file in sorted(others) for entry in _read(file)}
        self.entries = {entry.case: entry for entry in _read(self.file)}

    def is_done(self, case: str, target: Path, images: str, method: str) -> bool:
        """Whether the label map that is there is what would be made."""
        entry = self.entries.get(case) or self.others.get(case)
        return (
            entry is not None
            and entry.state == "done"
            and target.is_file()
            and entry.file == target.name
            and (entry.images, entry.method) == (images, method)
            and entry.labels == sha256(target)
        )

    def note(self, entry: Entry) -> None:
        """Add a case, or replace what is known of it."""
        stamped = asdict(entry) | {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self.entries[entry.case] = Entry(**stamped)
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(self.entries[case]) for case in sorted(self.entries))
        write_text(self.file, text.getvalue())


def _read(file: Path) -> list[Entry]:
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
        return [Entry(**_typed(row)) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # not ours, or cut off before it was ever complete: nothing is known


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "seconds": float(row["seconds"])}

"""Cases that dataset.json names itself, in its block `dataset`; nnU-Net then does not look into imagesTr."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from umamba_seg.datasets.findings import Finding

FILE = ("dataset.json",)


def is_named(description: Mapping[str, Any]) -> bool:
    """Whether dataset.json says where each case's files are."""
    return "dataset" in description and not isinstance(description["dataset"], str)


def take(folder: Path, cases: Any, images: dict[str, dict[int, Path]], labels: dict[str, Path]) -> Iterator[Finding]:
    """Put the files that are there into `images` and `labels`, and tell those that are not.

    Args:
        folder: Of the data set; relative paths begin there.
        cases: The block.
        images: By case and channel, to be filled.
        labels: By case, to be filled.
    """
    if not isinstance(cases, Mapping):
        yield Finding("json-paths", "error", 'dataset must be {"case": {"images": […], "label": …}}', files=FILE)
        return
    for case, entry in cases.items():
        if not _is_entry(entry):
            message = f'the entry of {case} must be {{"images": […], "label": …}}'
            yield Finding("json-paths", "error", message, (case,), FILE, found=entry)
            continue
        missing = [path for path in (*entry["images"], entry["label"]) if not _absolute(folder, path).is_file()]
        if not missing:
            images[case] = {i: _absolute(folder, path) for i, path in enumerate(entry["images"])}
            labels[case] = _absolute(folder, entry["label"])
            continue
        yield Finding(
            "json-paths", "error", f"dataset.json names files that are not there: {', '.join(missing)}", (case,),
            FILE, found=missing, mend="correct the paths; they are relative to the data set's folder",
        )  # fmt: skip


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("images"), list) or not entry["images"]:
        return False
    return all(isinstance(path, str) for path in (*entry["images"], entry.get("label")))


def _absolute(folder: Path, path: str) -> Path:
    """As nnU-Net resolves it: variables too."""
    return folder / os.path.expandvars(path)

"""Mending names and leaving files out."""

import gzip
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from umamba_seg.datasets import pictures, volumes
from umamba_seg.datasets.check.layout import IGNORED, LONGEST_NAME, RESERVED
from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.fix.draft import Draft
from umamba_seg.datasets.fix.remedy import Step
from umamba_seg.files import replacing

FOLDERS = ("imagesTr", "labelsTr")


def move_up(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """`imagesTr/imagesTr` becomes `imagesTr`."""
    (name,) = finding.files or ("",)
    folder = draft.folder / name
    inner = [x for x in folder.iterdir() if x.is_dir()] if name and folder.is_dir() else []
    if len(inner) != 1 or any(not x.is_dir() and x.name not in IGNORED for x in folder.iterdir()):
        return None

    def act() -> None:
        emptied = inner[0].rename(folder.with_name(f".{name}.inner"))
        for entry in list(emptied.iterdir()):
            entry.rename(folder / entry.name)
        emptied.rmdir()

    return Step(f"the files of {name}/{inner[0].name} move one level up", (name,), act)


def leave_case_out(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """All files of the cases at fault."""
    return _without(draft, finding.cases)


def leave_doubles_out(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """All cases but the first."""
    return _without(draft, finding.cases[1:])


def _without(draft: Draft, cases: Collection[str]) -> Step | None:
    files = [name for case in cases for name in draft.files_of(case)]
    return Step(f"{', '.join(cases)} left out", tuple(files), lambda: draft.remove(*files)) if files else None


def leave_file_out(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The files at fault alone."""
    files = [name for name in finding.files if draft.has(name)]
    return Step(f"{', '.join(files)} left out", tuple(files), lambda: draft.remove(*files)) if files else None


def rename_suffix(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The name that a file should have, where there is only one that it can be."""
    (old,) = finding.files
    folder, _slash, file = old.partition("/")
    new = f"{folder}/{finding.expected}"
    rivals = [x for x in draft.layout.findings if x.code == finding.code and x.expected == finding.expected]
    if folder not in FOLDERS or not draft.has(old) or draft.has(new) or len(rivals) > 1:
        return None
    if folder == "imagesTr" and not _is_told(draft, file, str(finding.expected)):
        return None
    return Step(f"{old} is named {new}", (old, new), lambda: draft.rename(old, new))


def _is_told(draft: Draft, old: str, new: str) -> bool:
    """Whether the new name belongs to a label, and its channel is the only one or stood in the old name."""
    case = re.sub(r"_\d{4}$", "", new.removesuffix(draft.ending))
    stem = old.removesuffix(draft.ending)
    is_numbered = stem != case and re.search(r"_\d{1,4}$", stem) is not None
    return draft.has(f"labelsTr/{case}{draft.ending}") and (len(draft.layout.channels) <= 1 or is_numbered)


def rename_case(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Names of letters, digits, dot, _ and - alone, no two alike where capitals do not count."""
    old = finding.cases[-1]
    others = {case.casefold() for case in draft.layout.images if case != old}
    new = safe_name(old, others)
    if new == old or not draft.files_of(old):
        return None
    files = tuple(draft.files_of(old))
    return Step(f"case {old} is named {new}", files, lambda: draft.rename_case(old, new))


def safe_name(case: str, taken: Collection[str]) -> str:
    """A name near to `case` that every system keeps apart from those that are taken (in small letters)."""
    plain = unicodedata.normalize("NFKD", case.replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip("-")[: LONGEST_NAME - 4] or "case"
    plain = f"case_{plain}" if plain.split(".")[0].upper() in RESERVED else plain
    found, number = plain, 1
    while found.casefold() in taken:
        number += 1
        found = f"{plain}_{number}"
    return found


def correct_ending(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The key where all files have one other ending; the file where all others have the declared one."""
    if finding.files == ("dataset.json",):
        return _key(draft, draft.ending)
    if finding.files in (("imagesTr",), ("labelsTr",)):
        return _key(draft, str(finding.found))
    return _re_encode(draft, finding)


def _key(draft: Draft, ending: str) -> Step | None:
    files = [x.name for name in ("imagesTr", "labelsTr") for x in _listed(draft.folder / name)]
    if not files or ending == draft.description.get("file_ending") or not is_known(ending):
        return None
    if not all(name.endswith((ending, ".json")) for name in files):
        return None
    return Step(f"file_ending is {ending!r}", ("dataset.json",), lambda: draft.describe(file_ending=ending))


def _listed(folder: Path) -> list[Path]:
    return [x for x in folder.iterdir() if x.name not in IGNORED] if folder.is_dir() else []


def is_known(ending: str) -> bool:
    """Whether files of this ending can be read and written."""
    return ending.lower() in (*volumes.NIFTI, *volumes.ITK, *pictures.ENDINGS)


def _re_encode(draft: Draft, finding: Finding) -> Step | None:
    (old,), ending = finding.files, str(finding.found)
    new = f"{old.removesuffix(ending)}{draft.ending}"
    if not draft.has(old) or draft.has(new) or not (is_known(ending) and is_known(draft.ending)):
        return None
    if pictures.is_picture(Path(old)) != pictures.is_picture(Path(new)):
        return None

    def act() -> None:
        source, target = draft.folder / old, draft.folder / new
        if ending.lower() == draft.ending.lower():
            source.rename(target)
            return
        if {ending.lower(), draft.ending.lower()} == set(volumes.NIFTI):
            _zip_or_unzip(source, target)
        else:
            volumes.write(target, volumes.read(source))
        source.unlink()

    return Step(f"{old} is stored as {new}", (old, new), act)


def _zip_or_unzip(source: Path, target: Path) -> None:
    """NIfTI alone and compressed are the same bytes, so header and voxels stay as they are."""
    volumes.read(source)  # what is damaged is not made to look sound
    content = source.read_bytes()
    with replacing(target) as file:
        file.write(
            gzip.compress(content, 6, mtime=0) if target.name.lower().endswith(".gz") else gzip.decompress(content)
        )

"""Data sets in a zip: nothing is written before every name in it is known to stay where it belongs."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from umamba_seg.errors import DataError, ResourceError
from umamba_seg.files import told_when_full
from umamba_seg.progress import OnProgress, Progress, ignore

DESCRIPTION = "dataset.json"
DEEPEST = 2  # folders around the data set
MACOS = ("__MACOSX", ".DS_Store")


@contextmanager
def unpacked(file: Path, place: Path, report: OnProgress = ignore) -> Iterator[Path]:
    """The data set's folder in a zip, unpacked for as long as the block lasts; what is moved out of it stays.

    Args:
        file: The zip.
        place: A folder that is not there yet, on the disk where the data set goes.
        report: Told how far it is.

    Raises:
        DataError: It is damaged, or a name in it leads elsewhere.
        ResourceError: The disk cannot take it.
    """
    with opened(file) as archive:
        members = _members(archive, file)
        inside = PurePosixPath(folder_of(archive, file))
        shutil.rmtree(place, ignore_errors=True)
        try:
            _check_room(members, place)
            with told_when_full(place):
                _extract(archive, members, place, file, report)
            yield place / inside
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose names are sound."""
    if not file.is_file():
        raise DataError("there is no such file", where=str(file), code="no-file")
    try:
        with zipfile.ZipFile(file) as archive:
            _check_names(archive, file)
            yield archive
    except zipfile.BadZipFile as fault:
        how = ["fetch it again"]
        raise DataError(f"it is no sound zip: {fault}", where=str(file), how=how, code="unreadable") from None


def folder_of(archive: zipfile.ZipFile, file: Path) -> str:
    """The folder in a zip that holds the one data set, "." for its top."""
    found = [
        PurePosixPath(x.filename) for x in _members(archive, file) if PurePosixPath(x.filename).name == DESCRIPTION
    ]
    found = [path for path in found if len(path.parts) <= DEEPEST + 1]
    if not found:
        how = ["it needs a folder with dataset.json, imagesTr and labelsTr"]
        raise DataError("there is no dataset.json in it", where=str(file), how=how, code="no-data-set")
    if len(found) > 1:
        what = f"it holds {len(found)} data sets: {', '.join(str(path.parent) for path in found[:3])}"
        raise DataError(what, where=str(file), how=["unpack it, and import one after the other"], code="many-data-sets")
    return str(found[0].parent)


def _check_names(archive: zipfile.ZipFile, file: Path) -> None:
    seen: set[str] = set()
    folders = {str(parent).casefold() for x in archive.infolist() for parent in PurePosixPath(x.filename).parents}
    for info in archive.infolist():
        name = info.filename.casefold()
        if fault := _fault(info) or ("is there twice" if name in seen or name in folders else ""):
            how = ["have it packed again, from inside the folder of the data set"]
            what = f"{info.filename!r} {fault}; nothing was written"
            raise DataError(what, where=str(file), how=how, code="unsafe-zip")
        seen.add(name)


def _fault(info: zipfile.ZipInfo) -> str:
    name, path = info.orig_filename, PurePosixPath(info.orig_filename.replace("\\", "/"))
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return "is an absolute name"
    if ".." in path.parts:
        return "leads out of the zip"
    if "\0" in name or "\\" in name:
        return "has a character that is no part of a name"
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    return "is encrypted" if info.flag_bits & 1 else ""


def _members(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The files, without those that macOS adds."""
    return [
        info
        for info in archive.infolist()
        if not info.is_dir()
        and not any(part in MACOS or part.startswith("._") for part in PurePosixPath(info.filename).parts)
    ]


def _check_room(members: list[zipfile.ZipInfo], place: Path) -> None:
    needed, free = sum(info.file_size for info in members), shutil.disk_usage(place.parent).free
    if needed > free:
        what = f"unpacked it takes {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB are free"
        raise ResourceError(what, where=str(place.parent), how=["free some space"], code="disk-full")


def _extract(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], place: Path, file: Path, report: OnProgress
) -> None:
    place.mkdir(parents=True)
    for done, info in enumerate(members, 1):
        target = place / info.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(info) as source, target.open("xb") as made:
                shutil.copyfileobj(source, made, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as fault:
            how = ["fetch it again"]
            what = f"{info.filename} cannot be unpacked: {fault}"
            raise DataError(what, where=str(file), how=how, code="unreadable") from None
        report(Progress("unpack", done, len(members), "files"))

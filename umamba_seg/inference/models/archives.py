"""nnU-Net's model zips: which models they hold, and unpacking them without trusting anything in them.

`nnUNetv2_export_model_to_zip` writes `DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/...`, often several of them. Names
and sizes are judged before the first byte is written, those of members that are not wanted too: a zip that tries to
write elsewhere is not worth a part of it.
"""

import errno
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from umamba_seg.errors import ModelError, ResourceError
from umamba_seg.files import told_when_full

MOST_MEMBERS = 100_000
MOST_INFLATION = 100  # weights shrink by a tenth; JSON and empty label maps, at most a few megabytes, by up to 1000
HARMLESS_BYTES = 200_000_000  # whatever the inflation
LONGEST_NAME, LONGEST_PART = 1000, 255

EVERYTHING = PurePosixPath()

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 0x1
_ORDINARY = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made where files have no type

Members = Mapping[PurePosixPath, zipfile.ZipInfo]


def models_in(path: Path) -> list[PurePosixPath]:
    """The results folders in a zip, which is not unpacked.

    Raises:
        ModelError: It cannot be read, or nobody should unpack it.
    """
    with _opened(path) as archive:
        return _models(_members(archive, path))


def size_of(path: Path, below: PurePosixPath) -> int:
    """Bytes of one folder in a zip, when unpacked."""
    with _opened(path) as archive:
        return _bytes(_below(_members(archive, path), below))


def unpack(path: Path, folder: Path, *, below: PurePosixPath = EVERYTHING) -> None:
    """Make `folder` and unpack a zip into it; what goes wrong leaves no folder.

    Args:
        path: The zip.
        folder: Does not exist yet.
        below: The only folder of the zip that is wanted, such as one of `models_in`; its place in the zip is kept.

    Raises:
        ModelError: It is damaged or would write elsewhere.
        ResourceError: It is larger than what is free here.
    """
    with _opened(path) as archive:
        wanted = _below(_members(archive, path), below)
        _check_room(_bytes(wanted), folder.parent, path)
        folder.mkdir()
        try:
            with told_when_full(folder):
                for name, member in wanted.items():
                    _write(archive, member, folder / name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """No more than the size the zip's directory gives is ever written; one that lies fails its checksum."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as fault:
        raise _damaged(path, fault) from fault
    except OSError as fault:
        # zipfile seeks to where a damaged directory says, before the file's begin if need be
        if fault.errno == errno.EINVAL or fault.filename == str(path):
            raise _damaged(path, fault) from fault
        raise


def _damaged(path: Path, fault: Exception) -> ModelError:
    how = ["fetch the file again: it is cut off or damaged, or no zip"]
    return ModelError(f"the zip cannot be read: {fault}", where=str(path), how=how, code="bad-zip")


def _members(archive: zipfile.ZipFile, path: Path) -> Members:
    """The files of a zip by name, after a look at each name and at what they come to."""
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS:
        raise _refusal(path, f"{len(entries):,} files are in it, and no model has more than {MOST_MEMBERS:,}")
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))  # written by some programs on Windows
        if reason := _why_not(entry, name):
            raise _refusal(path, f"{_shown(entry.filename)} {reason}")
        if entry.filename.endswith(("/", "\\")):
            continue  # folders are made for what is in them
        if name in members:
            raise _refusal(path, f"{_shown(entry.filename)} is in it twice")
        members[name] = entry
    _check_clashes(members, path)
    _check_inflation(_bytes(members), path)
    return members


def _why_not(entry: zipfile.ZipInfo, name: PurePosixPath) -> str | None:
    """What keeps a member from being written, as the end of a sentence that begins with its name."""
    if name.is_absolute():
        return "is an absolute name, outside the folder to unpack into"
    if any(part.strip(" .") == "" for part in name.parts):  # Windows takes ".. " for ".."
        return "leads out of the folder to unpack into"
    if ":" in str(name):
        return "names a drive"
    if not str(name).isprintable():
        return "is no name that all systems can write"
    if len(str(name)) > LONGEST_NAME or any(len(os.fsencode(part)) > LONGEST_PART for part in name.parts):
        return "is too long a name"
    if stat.S_IFMT(entry.external_attr >> 16) not in _ORDINARY:
        return "is a link or a device, not a file"
    if entry.flag_bits & _IS_ENCRYPTED:
        return "needs a password"
    if entry.compress_type not in _PACKED:
        return f"is packed by method {entry.compress_type}, which only other programs read"
    return None


def _check_clashes(members: Members, path: Path) -> None:
    """Names that are one on other systems, and files that would have to be folders too."""
    seen: dict[str, PurePosixPath] = {}
    for name in members:
        other = seen.setdefault(unicodedata.normalize("NFC", str(name)).casefold(), name)
        if other != name:
            raise _refusal(path, f"{_shown(str(name))} and {_shown(str(other))} are one name on some systems")
    for name in members:
        for parent in name.parents:
            if parent in members:
                raise _refusal(path, f"{_shown(str(parent))} is both a file and a folder")


def _check_inflation(unpacked: int, path: Path) -> None:
    packed = max(1, path.stat().st_size)  # not what the members claim: they may share their bytes
    if unpacked > HARMLESS_BYTES and unpacked > MOST_INFLATION * packed:
        raise _refusal(path, f"{spoken_bytes(packed)} would become {spoken_bytes(unpacked)}, as no model does")


def _check_room(needed: int, place: Path, path: Path) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        what = f"unpacked it needs {spoken_bytes(needed)}, and {spoken_bytes(free)} are free in {place}"
        raise ResourceError(what, where=str(path), how=["free some space, or choose another disk"], code="no-room")


def _models(members: Members) -> list[PurePosixPath]:
    trained = {name.parent.parent for name in members if name.match("fold_*/checkpoint_*.pth")}
    return sorted(folder for folder in trained if {folder / "plans.json", folder / "dataset.json"} <= members.keys())


def _below(members: Members, folder: PurePosixPath) -> Members:
    return {name: member for name, member in members.items() if name.is_relative_to(folder)}


def _bytes(members: Members) -> int:
    return sum(member.file_size for member in members.values())


def _refusal(path: Path, reason: str) -> ModelError:
    how = ["ask whoever made it for a zip of nnUNetv2_export_model_to_zip"]
    return ModelError(f"the zip is not unpacked: {reason}", where=str(path), how=how, code="unsafe-zip")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:79] + "…")


def spoken_bytes(count: int) -> str:
    """`3.2 GB`, for a reader."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"

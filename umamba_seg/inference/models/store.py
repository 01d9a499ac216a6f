"""The model store: trained models by name, each a folder of nnU-Net's own files and `umamba_model.json`.

A model goes in whole or not at all, and nothing of it is run on the way: a checkpoint that would run code when it is
read stays out unless its maker is trusted, and even then it is taken without being read.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from umamba_seg.errors import MachineError, UsageError, unknown
from umamba_seg.files import told_when_full
from umamba_seg.inference.models import archives
from umamba_seg.inference.models.record import FILE, PICKLES, InstalledModel, kept, matching, read_record, write_record
from umamba_seg.inference.models.sources import Offer, many, offers_of, origin, results_folder
from umamba_seg.progress import OnProgress, ignore
from umamba_seg.run_record import sha256
from umamba_seg.workspace import make_folder, settings

_NAME = re.compile(r"\w[\w.+-]{0,199}")
_OLD = 24 * 60 * 60  # seconds after which nobody is still writing into a folder


def store_folder(store: Path | None = None) -> Path:
    """The folder of the store, whether it exists or not: the one given, else as the setting `models` says."""
    return Path(settings({"models": store})["models"].value).expanduser().resolve()


def installed(store: Path | None = None) -> list[InstalledModel]:
    """All models of the store, by name."""
    home = store_folder(store)
    return [read_record(home / name / FILE) for name in names_in(home)]


def offers(source: str | Path, name: str | None = None, *, store: Path | None = None) -> list[Offer]:
    """The models that `install` would add, each under a name that is free.

    Raises:
        ModelError: The source is no model, or a zip that nobody should unpack.
        UsageError: A name is taken, or does not suit.
    """
    path = Path(source)
    found = offers_of(path)
    if name is not None:
        if len(found) > 1:
            how = ["leave the name out: each gets one of its own"]
            raise UsageError(f"{many(found)}, so one name is not enough", where=str(path), how=how, code="many-models")
        found = [Offer(_suitable(name), found[0].place, found[0].size)]
    home = store_folder(store)
    names = [offer.name for offer in found]
    for offer in found:
        if os.path.lexists(home / offer.name) or names.count(offer.name) > 1:
            raise _taken(offer.name, home)
    return found


def install(
    source: str | Path,
    name: str | None = None,
    *,
    store: Path | None = None,
    is_trusted: bool = False,
    report: OnProgress = ignore,
) -> list[InstalledModel]:
    """Copy what a model needs into the store; of a zip with several models all, or none if one is refused.

    Args:
        source: A results folder, or a zip as `nnUNetv2_export_model_to_zip` writes it.
        name: For the store; by default data set, trainer, plans and configuration.
        store: The folder of the store; by default as the setting `models` says.
        is_trusted: Take files that run code when they are read. They are not read here.
        report: Told how far it is.

    Raises:
        ModelError: A checkpoint is damaged or would run code, or a file is missing.
        UsageError: The name is taken.
    """
    path, home = Path(source), store_folder(store)
    chosen = offers(path, name, store=home)
    _make_store(home)
    _sweep(home)
    with ExitStack() as stack, told_when_full(home):
        staged = []
        for offer in chosen:
            part = stack.enter_context(_part(home, offer.name))
            model, left_out = _bring(path, offer.place, part, is_trusted)
            record = write_record(
                model,
                offer.name,
                source=path,
                origin=origin(path, offer.place),
                left_out=left_out,
                is_trusted=is_trusted,
                report=report,
            )
            staged.append((model, record))
        for model, record in staged:
            _publish(model, home / record.name)
    return [record for _, record in staged]


def folder_of(name: str, *, store: Path | None = None) -> Path:
    """The folder of an installed model.

    Raises:
        UsageError: There is none of that name.
    """
    home = store_folder(store)
    names = names_in(home)
    if name not in names:
        how = [] if names else [f"no model is installed in {home}; umamba models install SOURCE  adds one"]
        raise unknown("model", name, names, how=how)
    return home / name


def remove(name: str, *, store: Path | None = None) -> None:
    """Take a model out of the store, at once: a kill leaves it there or gone."""
    home = store_folder(store)
    folder = folder_of(name, store=home)
    with _part(home, name) as part:
        folder.rename(part / "model")


def verify(name: str, *, store: Path | None = None) -> dict[str, str]:
    """Compare the files of a model with their hashes when it was installed.

    Returns:
        What is wrong with a file: `changed`, `missing`, or `added` since then; empty when nothing is.
    """
    folder = folder_of(name, store=store)
    noted = read_record(folder / FILE).files
    there = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if not file.is_dir()}
    there.pop(FILE)
    missing = {file: "missing" for file in noted if file not in there}
    added = {file: "added" for file in there if file not in noted}
    both = [file for file in noted if file in there]
    return missing | added | {file: "changed" for file in both if sha256(there[file]) != noted[file]}


def names_in(home: Path) -> list[str]:
    """Of the models in a store."""
    return sorted(file.parent.name for file in home.glob(f"*/{FILE}") if not file.parent.name.startswith("."))


def _suitable(name: str) -> str:
    if not _NAME.fullmatch(name):
        how = ["use letters, digits, _ . + -, and begin with a letter or digit"]
        raise UsageError(f"{name!r} cannot be the name of a model", where="--name", how=how, code="bad-name")
    return name


def _taken(name: str, home: Path) -> UsageError:
    how = ["choose another with --name", f"or first  umamba models remove {name}"]
    return UsageError(f"there is a model {name!r} already", where=str(home), how=how, code="name-taken")


def _make_store(home: Path) -> None:
    try:
        make_folder(home, where="the model store")
    except MachineError as fault:
        how = ["choose another folder with --models DIR, or set UMAMBA_MODELS"]
        raise MachineError(fault.what, where=fault.where, how=how, code=fault.code) from fault


def _sweep(home: Path) -> None:
    """Delete what kills have left."""
    for part in home.glob(".*.part"):
        with suppress(FileNotFoundError):  # somebody else has done it
            if time.time() - part.stat().st_mtime > _OLD:
                shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _part(home: Path, name: str) -> Iterator[Path]:
    """A folder in the store that is no model and is deleted at the end, with what is still in it."""
    part = Path(tempfile.mkdtemp(dir=home, prefix=f".{name[:100]}.", suffix=".part"))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _bring(path: Path, place: PurePosixPath, part: Path, is_trusted: bool) -> tuple[Path, list[str]]:
    """Put the files that are kept into `part/model`; also the names of pickles that are not."""
    model = part / "model"
    folder = results_folder(path)
    move: Callable[[Path, Path], object] = shutil.copyfile
    if folder is None:
        archives.unpack(path, part / "zip", below=place)
        folder, move = part / "zip" / place, os.replace
    for file in kept(folder, is_trusted=is_trusted):
        target = model / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        move(file, target)
    left_out = [] if is_trusted else [file.relative_to(folder).as_posix() for file in matching(folder, PICKLES)]
    return model, left_out


def _publish(model: Path, target: Path) -> None:
    try:
        model.rename(target)
    except OSError as fault:
        if target.exists():  # made by somebody else in the meantime
            raise _taken(target.name, target.parent) from fault
        raise

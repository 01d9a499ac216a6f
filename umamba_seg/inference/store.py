"""The model store: trained models by name, each a folder of nnU-Net's own files and `umamba_model.json`.

A model goes in whole or not at all, and nothing of it is run on the way: a checkpoint that would run code when it is
read stays out unless its maker is trusted, and even then it is taken without being read.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from umamba_seg.errors import DataError, MachineError, ModelError, UsageError, unknown
from umamba_seg.files import told_when_full, write_text
from umamba_seg.inference import archives
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.run_record import sha256
from umamba_seg.workspace import channel_names, make_folder, read_json, settings

FILE = "umamba_model.json"
CHECKPOINTS = ("fold_*/checkpoint_final.pth", "fold_*/checkpoint_best.pth")
# As nnUNetv2_export_model_to_zip chooses: what predicting and judging a model needs, and not what training it left.
KEPT = (
    "plans.json",
    "dataset.json",
    "dataset_fingerprint.json",
    *CHECKPOINTS,
    "fold_*/debug.json",
    "fold_*/progress.png",
    "fold_*/network_architecture.pdf",
    "fold_*/validation/summary.json",
    "crossval_results_folds_*/summary.json",
    "crossval_results_folds_*/postprocessing.json",
)
PICKLES = ("crossval_results_folds_*/postprocessing.pkl",)  # nnU-Net runs the code in them

_DATASET = re.compile(r"Dataset\d{3}_")
_NAME = re.compile(r"\w[\w.+-]{0,199}")
_OLD = 24 * 60 * 60  # seconds after which nobody is still writing into a folder


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """What `umamba_model.json` says.

    Args:
        name: Its name in the store; empty for a model that is in none.
        source: The zip or folder it came from.
        installed: When.
        dataset: The data set it was trained on, by nnU-Net's name.
        trainer: The class that trained it.
        plans: Name of its plans.
        configuration: Which of them.
        folds: Those with a checkpoint: `0`, `all`.
        provenance: What its first checkpoint notes on who made it, with versions; empty for those of stock nnU-Net.
        left_out: Pickles that came with it and were not taken.
        files: The hash of each file.
    """

    name: str
    source: str
    installed: str
    dataset: str
    trainer: str
    plans: str
    configuration: str
    folds: tuple[str, ...]
    provenance: Mapping[str, Any]
    left_out: tuple[str, ...]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Description:
    """A model in a user's words.

    Args:
        record: Where it comes from.
        labels: Values by name, as in dataset.json.
        channels: Names of the images it wants, in order.
        network: Dotted name of the network's class; empty where the plans do not say.
        patch: Voxels of a patch.
        spacing: Their edges in mm.
        size: Bytes of its files.
    """

    record: InstalledModel
    labels: Mapping[str, Any]
    channels: tuple[str, ...]
    network: str
    patch: tuple[int, ...]
    spacing: tuple[float, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a zip or a folder has for the store.

    Args:
        name: It would get.
        place: Its results folder inside the zip; `.` where the source is the results folder.
        size: Bytes, about.
    """

    name: str
    place: PurePosixPath
    size: int


def store_folder(store: Path | None = None) -> Path:
    """The folder of the store, whether it exists or not: the one given, else as the setting `models` says."""
    return Path(settings({"models": store})["models"].value).expanduser().resolve()


def installed(store: Path | None = None) -> list[InstalledModel]:
    """All models of the store, by name."""
    home = store_folder(store)
    return [_read_record(home / name / FILE) for name in _names(home)]


def describe(source: str | Path, *, store: Path | None = None) -> Description:
    """What is known of a model: of the store, or another that `model_folder` finds."""
    with model_folder(source, store=store) as folder:
        record = _read_record(folder / FILE) if (folder / FILE).is_file() else _unread_record(folder, source)
        plans, dataset_json = _read(folder / "plans.json"), _read(folder / "dataset.json")
        entry = _configuration(plans, record.configuration)
        network = entry.get("architecture", {}).get("network_class_name") or entry.get("UNet_class_name", "")
        return Description(
            record=record,
            labels=dataset_json.get("labels", {}),
            channels=tuple(channel_names(dataset_json)),
            network=network,
            patch=tuple(entry.get("patch_size", ())),
            spacing=tuple(entry.get("spacing", ())),
            size=_size(_kept(folder, is_trusted=True)),
        )


def offers(source: str | Path, name: str | None = None, *, store: Path | None = None) -> list[Offer]:
    """The models that `install` would add, each under a name that is free.

    Raises:
        ModelError: The source is no model, or a zip that nobody should unpack.
        UsageError: A name is taken, or does not suit.
    """
    path = Path(source)
    found = _offers_of(path)
    if name is not None:
        if len(found) > 1:
            how = ["leave the name out: each gets one of its own"]
            raise UsageError(f"{_many(found)}, so one name is not enough", where=str(path), how=how, code="many-models")
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
            staged.append((model, _record(model, offer, path, left_out, is_trusted, report)))
        for model, record in staged:
            _publish(model, home / record.name)
    return [record for _, record in staged]


def folder_of(name: str, *, store: Path | None = None) -> Path:
    """The folder of an installed model.

    Raises:
        UsageError: There is none of that name.
    """
    home = store_folder(store)
    names = _names(home)
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
    noted = _read_record(folder / FILE).files
    there = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if not file.is_dir()}
    there.pop(FILE)
    missing = {file: "missing" for file in noted if file not in there}
    added = {file: "added" for file in there if file not in noted}
    both = [file for file in noted if file in there]
    return missing | added | {file: "changed" for file in both if sha256(there[file]) != noted[file]}


@contextmanager
def model_folder(source: str | Path, *, store: Path | None = None) -> Iterator[Path]:
    """The results folder that a user means.

    Args:
        source: A results folder, a fold in one, a zip with one model (unpacked for as long as the block lasts), or a
            name in the store.
        store: The folder of the store; by default as the setting `models` says.

    Raises:
        ModelError: A folder or zip that is no model.
        UsageError: A name that is not in the store, or a zip with several models.
    """
    path = Path(source)
    if (folder := _results_folder(path)) is not None:
        yield folder
    elif path.is_file():
        with _unpacked(path) as folder:
            yield folder
    else:
        yield _named(str(source), path, store_folder(store))


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    found = _offers_of(path)
    if len(found) > 1:
        how = [f"umamba models install {path}", "then use one of the names it prints"]
        raise UsageError(f"{_many(found)}; say which", where=str(path), how=how, code="many-models")
    with tempfile.TemporaryDirectory(prefix="umamba-") as spare:
        folder = Path(spare) / "model"
        archives.unpack(path, folder, below=found[0].place)
        yield folder / found[0].place


def _named(name: str, path: Path, home: Path) -> Path:
    """A model of the store; what looks like a path and is none is told as such."""
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".zip"
    if is_path and name not in _names(home):
        raise _no_model(path)
    return folder_of(name, store=home)


def _no_model(path: Path) -> ModelError:
    if not path.exists():
        how = [
            "give TRAINER__PLANS__CONFIGURATION below nnUNet_results/DATASET, a zip, or a name of umamba models list"
        ]
        return ModelError("there is no such model folder or zip", where=str(path), how=how, code="no-model")
    inside = sorted(file.parent for file in [*path.glob("*/plans.json"), *path.glob("*/*/plans.json")])[:3]
    how = [f"give a folder that has one: {', '.join(map(str, inside))}"] if inside else []
    how = how or ["give the folder that holds fold_0, not a fold or the data set's folder"]
    return ModelError("the model folder has no plans.json", where=str(path), how=how, code="incomplete-model")


def _results_folder(path: Path) -> Path | None:
    if (path / "plans.json").is_file():
        return path
    whole = _whole(path)
    is_fold = whole.is_dir() and whole.name.startswith("fold_") and (whole.parent / "plans.json").is_file()
    return whole.parent if is_fold else None


def _names(home: Path) -> list[str]:
    return sorted(file.parent.name for file in home.glob(f"*/{FILE}") if not file.parent.name.startswith("."))


def _offers_of(path: Path) -> list[Offer]:
    folder = _results_folder(path)
    if folder is not None:
        return [Offer(_default_name(_origin(path)), archives.EVERYTHING, _size(_kept(folder)))]
    if not path.is_file():
        raise _no_model(path)
    places = archives.models_in(path)
    if not places:
        how = [
            "nnUNetv2_export_model_to_zip packs plans.json, dataset.json and fold_0/checkpoint_final.pth into one",
            f"for a checkpoint alone:  umamba import-weights {path} -o MODEL",
        ]
        raise ModelError("the file holds no nnU-Net model", where=str(path), how=how, code="no-model")
    return [Offer(_default_name(_origin(path, place)), place, archives.size_of(path, place)) for place in places]


def _origin(source: Path, place: PurePosixPath = archives.EVERYTHING) -> Path:
    """Where a model comes from, with the zip as a folder: the names of the last two folders tell what it is."""
    return _results_folder(_whole(source)) or _whole(source).with_suffix("") / place


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))  # unlike resolve(), it keeps the names of links


def _default_name(origin: Path) -> str:
    """`Dataset004_Hippocampus__nnUNetTrainer__nnUNetPlans__2d`, of the folders' names; else the last folder's."""
    parts = [origin.parent.name] if _DATASET.match(origin.parent.name) else []
    return re.sub(r"[^\w.+-]", "-", "__".join([*parts, origin.name])).lstrip(".+-")[:200] or "model"


def _suitable(name: str) -> str:
    if not _NAME.fullmatch(name):
        how = ["use letters, digits, _ . + -, and begin with a letter or digit"]
        raise UsageError(f"{name!r} cannot be the name of a model", where="--name", how=how, code="bad-name")
    return name


def _taken(name: str, home: Path) -> UsageError:
    how = ["choose another with --name", f"or first  umamba models remove {name}"]
    return UsageError(f"there is a model {name!r} already", where=str(home), how=how, code="name-taken")


def _many(found: Sequence[Offer]) -> str:
    return f"{len(found)} models are in it, {', '.join(str(offer.place) for offer in found)}"


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
    folder = _results_folder(path)
    move: Callable[[Path, Path], object] = shutil.copyfile
    if folder is None:
        archives.unpack(path, part / "zip", below=place)
        folder, move = part / "zip" / place, os.replace
    for file in _kept(folder, is_trusted=is_trusted):
        target = model / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        move(file, target)
    left_out = [] if is_trusted else [file.relative_to(folder).as_posix() for file in _matching(folder, PICKLES)]
    return model, left_out


def _kept(folder: Path, *, is_trusted: bool = False) -> list[Path]:
    return _matching(folder, (*KEPT, *PICKLES) if is_trusted else KEPT)


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _record(
    model: Path, offer: Offer, source: Path, left_out: Sequence[str], is_trusted: bool, report: OnProgress
) -> InstalledModel:
    """Read a model's checkpoints and plans, and write down what they are beside them."""
    if not (model / "dataset.json").is_file():
        how = ["it lies beside plans.json, and in nnUNet_raw and nnUNet_preprocessed"]
        raise ModelError("the model folder has no dataset.json", where=str(source), how=how, code="incomplete-model")
    told = _read_checkpoints(model, source, is_trusted, lambda at: report(replace(at, step=f"read {offer.name}")))
    noted = _mapping(told.get("umamba_seg"))
    identity = _identity(
        _origin(source, offer.place),
        _read(model / "plans.json"),
        configuration=str(_mapping(told.get("init_args")).get("configuration", "")),
        trainer=str(noted.get("trainer") or told.get("trainer_name") or ""),
    )
    record = InstalledModel(
        name=offer.name,
        source=str(_whole(source)),
        installed=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **identity,
        folds=_folds(model),
        provenance={str(key): value for key, value in noted.items() if isinstance(value, str | int | float | None)},
        left_out=tuple(left_out),
        files={file.relative_to(model).as_posix(): sha256(file) for file in _kept(model, is_trusted=True)},
    )
    write_text(model / FILE, json.dumps(asdict(record), indent=1))
    return record


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _unread_record(folder: Path, source: str | Path) -> InstalledModel:
    """Of a model that is not in the store, as far as its folder and plans tell; its checkpoints are not read."""
    identity = _identity(_whole(folder), _read(folder / "plans.json"), configuration="", trainer="")
    nothing: dict[str, Any] = {"name": "", "installed": "", "provenance": {}, "left_out": (), "files": {}}
    return InstalledModel(source=str(source), **identity, folds=_folds(folder), **nothing)


def _identity(origin: Path, plans: Mapping[str, Any], *, configuration: str, trainer: str) -> dict[str, Any]:
    """Data set, trainer, plans and configuration: what checkpoint and plans say, else the folder's name."""
    parts = origin.name.split("__")
    told = parts if len(parts) == 3 and parts[2] in plans["configurations"] else ["", "", ""]
    only = next(iter(plans["configurations"])) if len(plans["configurations"]) == 1 else ""
    parent = origin.parent.name if _DATASET.match(origin.parent.name) else ""
    return {
        "dataset": str(plans.get("dataset_name") or parent),
        "trainer": told[0] or trainer,
        "plans": str(plans.get("plans_name") or told[1]),
        "configuration": configuration or told[2] or only,
    }


def _folds(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({file.parent.name.removeprefix("fold_") for file in _matching(folder, CHECKPOINTS)}))


def _read_checkpoints(model: Path, source: Path, is_trusted: bool, report: OnProgress) -> dict[str, Any]:
    """What the first checkpoint says beside its weights, after a look at all of them."""
    from umamba_seg.networks.weights import read_file

    files = _matching(model, CHECKPOINTS)
    if not files:
        how = ["finish training first: the same  umamba train  command goes on"]
        raise ModelError("no fold has a checkpoint_final.pth", where=str(source), how=how, code="no-folds")
    told: dict[str, Any] = {}
    for done, file in enumerate(files):
        report(Progress("read", done, len(files), "checkpoints"))
        where = f"{source}: {file.relative_to(model).as_posix()}"
        try:
            content = read_file(file)
        except ModelError as fault:
            if is_trusted and fault.code == "untrusted-pickle":
                continue  # taken as it is: installing runs no code, whoever is trusted
            raise ModelError(fault.what, where=where, how=fault.how, code=fault.code) from fault
        if "network_weights" not in content:
            how = ["for weights that are no checkpoint of nnU-Net:  umamba import-weights FILE -o MODEL"]
            raise ModelError("the checkpoint has no network_weights", where=where, how=how, code="bad-weights-file")
        told = told or {key: value for key, value in content.items() if key != "network_weights"}
    report(Progress("read", len(files), len(files), "checkpoints"))
    return told


def _publish(model: Path, target: Path) -> None:
    try:
        model.rename(target)
    except OSError as fault:
        if target.exists():  # made by somebody else in the meantime
            raise _taken(target.name, target.parent) from fault
        raise


def _read_record(file: Path) -> InstalledModel:
    """The file of an installed model; its folder's name is the model's, also after somebody has renamed it."""
    try:
        content = json.loads(file.read_text())
        known: dict[str, Any] = {field.name: content[field.name] for field in fields(InstalledModel)}
        lists = {key: tuple(known[key]) for key in ("folds", "left_out")}
        return InstalledModel(**{**known, **lists, "name": file.parent.name})
    except (OSError, ValueError, TypeError, KeyError) as fault:
        how = [f"umamba models remove {file.parent.name}", "then install it again"]
        what = "the file that says what the model is cannot be read"
        raise ModelError(what, where=str(file), how=how, code="bad-model-record") from fault


def _read(file: Path) -> dict[str, Any]:
    """plans.json or dataset.json: what is wrong with them is the model's fault, not that of the user's data."""
    try:
        content: dict[str, Any] = read_json(file)
    except DataError as fault:
        raise ModelError(fault.what, where=str(file), how=fault.how, code="bad-model") from fault
    configurations = content.get("configurations")
    if file.name == "plans.json" and not (
        isinstance(configurations, dict) and all(isinstance(entry, dict) for entry in configurations.values())
    ):
        raise ModelError("these are no nnU-Net plans: they have no configurations", where=str(file), code="bad-model")
    return content


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One configuration of the plans with what it inherits from others; empty where there is none of that name."""
    entry: dict[str, Any] = {}
    left = dict(plans["configurations"])
    while found := left.pop(name, None):  # each once: plans that inherit in a circle come to an end
        entry = {**found, **entry}
        name = found.get("inherits_from", "")
    return entry

"""What a model is, beside its weights: what nnU-Net's files, its checkpoints and its folder tell of it.

A model of the store keeps that in `umamba_model.json`, with the hash of each file.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from umamba_seg.errors import DataError, ModelError
from umamba_seg.files import write_text
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.run_record import sha256
from umamba_seg.workspace import read_json

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

DATASET = re.compile(r"Dataset\d{3}_")


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


def read_record(file: Path) -> InstalledModel:
    """The file of an installed model; its folder's name is the model's, also after somebody has renamed it."""
    try:
        content = json.loads(file.read_bytes())
        known: dict[str, Any] = {field.name: content[field.name] for field in fields(InstalledModel)}
        lists = {key: tuple(known[key]) for key in ("folds", "left_out")}
        return InstalledModel(**{**known, **lists, "name": file.parent.name})
    except (OSError, ValueError, TypeError, KeyError) as fault:
        how = [f"umamba models remove {file.parent.name}", "then install it again"]
        what = "the file that says what the model is cannot be read"
        raise ModelError(what, where=str(file), how=how, code="bad-model-record") from fault


def write_record(
    model: Path,
    name: str,
    *,
    source: Path,
    origin: Path,
    left_out: Sequence[str] = (),
    is_trusted: bool = False,
    report: OnProgress = ignore,
) -> InstalledModel:
    """Read a model's checkpoints and plans, and write down what they are beside them.

    Args:
        model: The folder with its files.
        name: For the store.
        source: Where the user had it.
        origin: The results folder it was there, whose name and parent's tell what it is.
        left_out: Pickles that were not taken.
        is_trusted: Leave checkpoints unread that would run code, instead of refusing them.
        report: Told how far it is.
    """
    if not (model / "dataset.json").is_file():
        how = ["it lies beside plans.json, and in nnUNet_raw and nnUNet_preprocessed"]
        raise ModelError("the model folder has no dataset.json", where=str(source), how=how, code="incomplete-model")
    told = _read_checkpoints(model, source, is_trusted, lambda at: report(replace(at, step=f"read {name}")))
    noted = _mapping(told.get("umamba_seg"))
    identity = _identity(
        origin,
        read_model_json(model / "plans.json"),
        configuration=str(_mapping(told.get("init_args")).get("configuration", "")),
        trainer=str(noted.get("trainer") or told.get("trainer_name") or ""),
    )
    record = InstalledModel(
        name=name,
        source=str(absolute(source)),
        installed=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **identity,
        folds=_folds(model),
        provenance={str(key): value for key, value in noted.items() if isinstance(value, str | int | float | None)},
        left_out=tuple(left_out),
        files={file.relative_to(model).as_posix(): sha256(file) for file in kept(model, is_trusted=True)},
    )
    write_text(model / FILE, json.dumps(asdict(record), indent=1))
    return record


def unread_record(folder: Path, source: str | Path) -> InstalledModel:
    """Of a model that is not in the store, as far as its folder and plans tell; its checkpoints are not read."""
    identity = _identity(absolute(folder), read_model_json(folder / "plans.json"), configuration="", trainer="")
    nothing: dict[str, Any] = {"name": "", "installed": "", "provenance": {}, "left_out": (), "files": {}}
    return InstalledModel(source=str(source), **identity, folds=_folds(folder), **nothing)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _identity(origin: Path, plans: Mapping[str, Any], *, configuration: str, trainer: str) -> dict[str, Any]:
    """Data set, trainer, plans and configuration: what checkpoint and plans say, else the folder's name."""
    parts = origin.name.split("__")
    told = parts if len(parts) == 3 and parts[2] in plans["configurations"] else ["", "", ""]
    only = next(iter(plans["configurations"])) if len(plans["configurations"]) == 1 else ""
    parent = origin.parent.name if DATASET.match(origin.parent.name) else ""
    return {
        "dataset": str(plans.get("dataset_name") or parent),
        "trainer": told[0] or trainer,
        "plans": str(plans.get("plans_name") or told[1]),
        "configuration": configuration or told[2] or only,
    }


def _folds(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({file.parent.name.removeprefix("fold_") for file in matching(folder, CHECKPOINTS)}))


def _read_checkpoints(model: Path, source: Path, is_trusted: bool, report: OnProgress) -> dict[str, Any]:
    """What the first checkpoint says beside its weights, after a look at all of them."""
    from umamba_seg.networks.weights import read_file

    files = matching(model, CHECKPOINTS)
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


def read_model_json(file: Path) -> dict[str, Any]:
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


def kept(folder: Path, *, is_trusted: bool = False) -> list[Path]:
    """The files of a model that a store takes; of a trusted maker those with code too."""
    return matching(folder, (*KEPT, *PICKLES) if is_trusted else KEPT)


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files by pattern, in the order of the patterns."""
    return [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]


def size_of_files(files: Sequence[Path]) -> int:
    """Their bytes."""
    return sum(file.stat().st_size for file in files)


def absolute(path: Path) -> Path:
    """From the root on. Unlike with resolve(), links keep their names."""
    return Path(os.path.abspath(path))

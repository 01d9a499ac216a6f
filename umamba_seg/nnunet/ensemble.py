"""`umamba ensemble`: the mean of several models' probabilities, by nnU-Net's own function."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umamba_seg.device import cores, set_import_time_variables
from umamba_seg.errors import DataError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.run_record import RunRecord
from umamba_seg.workspace import read_json

_PREDICT_AGAIN = "predict them with  umamba predict … --save-probabilities"


@dataclass(frozen=True, slots=True)
class Description:
    """Plans and dataset.json, which say how label maps are made of probabilities and written."""

    plans: dict[str, Any]
    dataset: dict[str, Any]

    @property
    def ending(self) -> str:
        """Of label maps."""
        return str(self.dataset["file_ending"])

    @classmethod
    def of(cls, folder: Path, *, option: str) -> "Description":
        """From a folder of a model, or of predictions of stock nnU-Net."""
        for name in ("plans.json", "dataset.json"):
            if not (folder / name).is_file():
                how = [f"name a folder that has both with {option}: a model's, or one that umamba select made"]
                raise UsageError(f"there is no {name} in {folder}", where=option, how=how, code="no-plans")
        return cls(read_json(folder / "plans.json"), read_json(folder / "dataset.json"))


def ensemble(
    folders: Sequence[Path],
    output: Path,
    *,
    model: Path | None = None,
    save_probabilities: bool = False,
    processes: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Average the probabilities of models and write label maps, or none where something is missing.

    Args:
        folders: Of the predictions of each model, with `.npz` and `.pkl` of the same cases.
        output: Folder for the label maps.
        model: Folder of one of the models; the first of `folders` unless given, where stock nnU-Net keeps plans too.
        save_probabilities: Also write the means as `.npz`.
        processes: How many cases to work on at once.
        overwrite: Replace label maps that are there.

    Returns:
        The label maps.

    Raises:
        DataError: A case or its probabilities are missing, or do not fit those of another model.
    """
    if len(folders) < 2:
        raise UsageError("an ensemble needs the predictions of two models", where="FOLDER…", code="one-folder")
    set_import_time_variables()
    cases = _cases(folders)
    description = Description.of(model or folders[0], option="--model")
    for case in cases:
        _check_shapes(folders, case)
    endings = (description.ending, *((".npz", ".pkl") if save_probabilities else ()))
    targets = [output / f"{case}{ending}" for case in cases for ending in endings]
    check_targets(targets, overwrite=overwrite)
    inputs = [folder / f"{case}.npz" for folder in folders for case in cases]
    record = RunRecord.begin("ensemble", device="cpu", inputs=inputs)
    output.mkdir(parents=True, exist_ok=True)
    with told_when_full(output), TemporaryDirectory(dir=output, prefix=".umamba-") as spare:
        from nnunetv2.ensembling.ensemble import ensemble_folders

        ensemble_folders(
            [str(folder) for folder in folders],
            spare,
            save_probabilities,
            processes or min(8, cores()),
            description.dataset,
            description.plans,
        )
        for target in targets:
            (Path(spare) / target.name).replace(target)
        record.finish(output, outputs=targets)
    return [output / f"{case}{description.ending}" for case in cases]


def check_targets(targets: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to replace what is there."""
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        what = f"{len(there)} of {len(targets)} files are there already, the first is {there[0].name}"
        how = ["choose another output folder, or --overwrite"]
        raise UsageError(what, where=str(there[0].parent), how=how, code="output-exists")


def _cases(folders: Sequence[Path]) -> list[str]:
    """Those that every folder has."""
    found = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError("there is no such folder", where=str(folder), code="no-folder")
        found[folder] = {file.stem for file in folder.glob("*.npz")}
        if not found[folder]:
            raise DataError("no probabilities are here", where=str(folder), how=[_PREDICT_AGAIN], code="no-npz")
    cases = sorted(set().union(*found.values()))
    for folder, here in found.items():
        lacking = [f"{case}.npz" for case in cases if case not in here]
        lacking += [f"{case}.pkl" for case in cases if folder == folders[0] and not (folder / f"{case}.pkl").is_file()]
        if lacking:
            what = f"{len(lacking)} files are missing that an ensemble needs, the first is {lacking[0]}"
            raise DataError(what, where=str(folder), how=[_PREDICT_AGAIN], code="missing-cases")
    return cases


def _check_shapes(folders: Sequence[Path], case: str) -> None:
    shapes = [_shape(folder / f"{case}.npz") for folder in folders]
    for folder, shape in zip(folders, shapes, strict=True):
        if shape != shapes[0]:
            sizes = " and ".join("×".join(map(str, one)) for one in (shapes[0], shape))
            what = f"probabilities of {case} differ in classes or size from those in {folders[0]}: {sizes}"
            how = ["average models of the same labels, on the same images"]
            raise DataError(what, where=str(folder), how=how, code="size-mismatch")


def _shape(file: Path) -> tuple[int, ...]:
    """Classes and size, from the first bytes."""
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(file) as archive, archive.open("probabilities.npy") as content:
            read_header = npy.read_array_header_1_0 if npy.read_magic(content) == (1, 0) else npy.read_array_header_2_0
            shape: tuple[int, ...] = read_header(content)[0]
            return shape
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as fault:
        what = f"the probabilities cannot be read: {fault}"
        raise DataError(what, where=str(file), how=[_PREDICT_AGAIN], code="unreadable-npz") from fault

"""`umamba predict`: label maps from a trained model, through nnU-Net's own predictor."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umamba_seg.device import choose_device, set_import_time_variables, use_threads
from umamba_seg.errors import DataError, ModelError, PartlyDoneError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.inference.cases import Case, find_cases, part_of, why_not
from umamba_seg.inference.ledger import Entry, Ledger
from umamba_seg.nnunet import activate
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.run_record import RunRecord, sha256
from umamba_seg.workspace import channel_names, read_json

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What was predicted, or with `is_dry_run` would be.

    Args:
        files: The label maps that are there now, in the order of the cases.
        reused: How many of them an earlier run of the same call had made.
        failed: Why a case was not segmented, by its name.
    """

    model: Path
    folds: tuple[int | str, ...]
    device: str
    files: tuple[Path, ...]
    seconds: float = 0.0
    is_dry_run: bool = False
    reused: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


def predict(
    model: Path | str,
    inputs: Path | str,
    output: Path | str,
    *,
    folds: Sequence[int | str] = (),
    mirror: bool = True,
    step: float = 0.5,
    device: str | None = None,
    save_probabilities: bool = False,
    part: str | None = None,
    trust: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    report: OnProgress = ignore,
) -> PredictResult:
    """Segment an image or a folder of images. A case that fails is told and does not stop the others.

    What an earlier run of the same call has made is not made again: `predictions.csv` beside the label maps proves it.

    Args:
        model: Results folder of one network, `…/nnUNetTrainer__umambaBot8GPlans__3d_fullres`.
        inputs: An image, or a folder of images named as nnU-Net wants them: `CASE_0000.nii.gz`, one file per channel.
            For models of one channel the `_0000` may be missing.
        output: Folder for the label maps; for a single image also the name of the file to write.
        folds: Which folds to average; empty means all that are trained.
        mirror: Average over mirrored images (test-time augmentation).
        step: Distance of the tiles in parts of a patch.
        device: `cpu`, `cuda`, `mps`; by default the best there is.
        save_probabilities: Also write the class probabilities as `.npz`.
        part: `2/5` takes every fifth case from the second, so that several machines share the work.
        trust: Whether code in the checkpoint may run, as unpickling does.
        overwrite: Replace label maps that are there.
        dry_run: Only say what would be done.
        report: Told how far it is.

    Raises:
        DataError: No case could be segmented.
    """
    began = time.monotonic()
    set_import_time_variables()
    folder = Path(model)
    dataset_json = _check_model(folder)
    chosen_folds = _check_folds(folder, folds)
    if not 0 < step <= 1:
        raise UsageError(f"the step must be above 0 and at most 1, got {step:g}", where="--step", code="bad-number")
    ending, channels = str(dataset_json["file_ending"]), channel_names(dataset_json)
    cases = part_of(find_cases(Path(inputs), Path(output), ending, channels), part)
    chosen_device = choose_device(device)
    if not cases:
        return PredictResult(folder, chosen_folds, chosen_device, (), is_dry_run=dry_run)
    targets = cases[0].target.parent
    ledger = Ledger(targets)
    images = {case.name: _hash(case.files) for case in cases}
    options = (chosen_folds, mirror, step, save_probabilities)
    method = _hash([folder / "plans.json", *_checkpoints(folder, chosen_folds)], str(options))
    reused = [c for c in cases if ledger.is_done(c.name, c.target, images[c.name], method)]
    wanted = [case for case in cases if overwrite or case not in reused]
    _check_targets([case.target for case in wanted], overwrite)
    if dry_run:
        files = tuple(case.target for case in cases)
        return PredictResult(
            folder, chosen_folds, chosen_device, files, is_dry_run=True, reused=len(cases) - len(wanted)
        )

    record = RunRecord.begin(
        "predict", device=chosen_device, inputs=[file for case in cases for file in case.files if file.is_file()]
    )
    targets.mkdir(parents=True, exist_ok=True)
    use_threads(chosen_device)
    failed: dict[str, str] = {}
    with told_when_full(targets):
        predictor = _load(folder, chosen_folds, mirror, step, chosen_device, trust) if wanted else None
        for done, case in enumerate(wanted):
            report(Progress("predict", done, len(wanted), "cases", {"case": case.name}))
            entry = _attempt(predictor, case, channels, ending, save_probabilities)
            ledger.note(replace(entry, images=images[case.name], method=method))
            if entry.state == "failed":
                failed[case.name] = entry.reason
        report(Progress("predict", len(wanted), len(wanted), "cases"))
        files = tuple(case.target for case in cases if case.name not in failed)
        exit_code = PartlyDoneError.exit_code if failed else 0
        record.finish(targets, outputs=files, exit_code=exit_code)
    if not files:
        name, reason = next(iter(failed.items()))
        what = f"no case could be segmented; {name}: {reason}"
        raise DataError(
            what, where=str(inputs), how=["umamba check finds faults of data sets"], code="unreadable-image"
        )
    seconds = time.monotonic() - began
    reused_count = len(cases) - len(wanted)
    return PredictResult(folder, chosen_folds, chosen_device, files, seconds, reused=reused_count, failed=failed)


def _hash(files: Sequence[Path], more: str = "") -> str:
    """Of the contents of files, and a word."""
    total = hashlib.sha256(more.encode())
    for file in files:
        total.update(sha256(file).encode() if file.is_file() else b"missing")
    return total.hexdigest()[:32]


def _checkpoints(folder: Path, folds: Sequence[int | str]) -> list[Path]:
    return [folder / f"fold_{fold}" / FINAL for fold in folds]


def _check_model(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        how = ["give the results folder, TRAINER__PLANS__CONFIGURATION below nnUNet_results/DATASET"]
        raise ModelError("there is no such model folder", where=str(folder), how=how, code="no-model")
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            how = ["give the folder that holds fold_0, not a fold or the data set's folder"]
            raise ModelError(f"the model folder has no {name}", where=str(folder), how=how, code="incomplete-model")
    return read_json(folder / "dataset.json")


def _check_folds(folder: Path, wanted: Sequence[int | str]) -> tuple[int | str, ...]:
    """The folds to use; without a wish all numbered ones, or `all` where only that is there."""
    trained = [path.parent.name.removeprefix("fold_") for path in sorted(folder.glob(f"fold_*/{FINAL}"))]
    if not trained:
        how = ["finish training first: the same  umamba train  command goes on"]
        raise ModelError(f"no fold has a {FINAL}", where=str(folder), how=how, code="no-folds")
    numbered = [name for name in trained if name != "all"]
    for fold in wanted:
        if str(fold) not in trained:
            what = f"fold {fold} is not trained; there are {', '.join(trained)}"
            raise ModelError(what, where=str(folder), how=["leave -f out to use all"], code="missing-fold")
    names = [str(fold) for fold in wanted] or numbered or trained
    return tuple(int(name) if name.isdecimal() else name for name in names)


def _check_targets(targets: list[Path], overwrite: bool) -> None:
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        what = f"{len(there)} of {len(targets)} label maps are there already, the first is {there[0].name}"
        how = ["choose another output folder, or --overwrite"]
        raise UsageError(what, where=str(there[0].parent), how=how, code="output-exists")


def _load(folder: Path, folds: tuple[int | str, ...], mirror: bool, step: float, device: str, trust: bool) -> Any:
    from umamba_seg.networks.weights import read_file

    activate()
    for file in _checkpoints(folder, folds) if not trust else ():
        read_file(file)  # the host unpickles; this refuses what would run code
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=step, use_mirroring=mirror, device=torch.device(device), allow_tqdm=False, verbose=False
    )
    try:
        predictor.initialize_from_trained_model_folder(str(folder), folds, FINAL)
    except (RuntimeError, EOFError, KeyError, ValueError, ImportError, OSError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        how = ["the file may be damaged, or made by another version or by a trainer that is not installed here"]
        raise ModelError(
            f"the model cannot be loaded: {reason}", where=str(folder), how=how, code="bad-model"
        ) from fault
    if predictor.configuration_manager.previous_stage_name is not None:
        what = "this is the second stage of a cascade, which `umamba predict` cannot run yet"
        raise ModelError(
            what, where=str(folder), how=["nnUNetv2_predict … -prev_stage_predictions FOLDER  can"], code="cascade"
        )
    return predictor


def _attempt(predictor: Any, case: Case, channels: Sequence[str], ending: str, save_probabilities: bool) -> Entry:
    """Segment a case, or say why not."""
    began = time.monotonic()
    dims = len(predictor.configuration_manager.patch_size)
    is_volume = dims == 3 or len(predictor.plans_manager.transpose_forward) == 3
    reason = why_not(case, channels, 3 if is_volume else 2)
    if reason is None:
        try:
            _predict_case(predictor, case, ending, save_probabilities)
        except OSError:
            raise  # the disk, not the image
        except (RuntimeError, ValueError, AssertionError, IndexError, MemoryError) as fault:
            reason = str(fault).strip().splitlines()[-1] if str(fault).strip() else type(fault).__name__
    seconds = round(time.monotonic() - began, 2)
    if reason is not None:
        return Entry(case.name, "failed", seconds=seconds, reason=reason)
    return Entry(case.name, "done", case.target.name, seconds)


def _predict_case(predictor: Any, case: Case, ending: str, save_probabilities: bool) -> None:
    """Predict one case in a folder of its own and move the result, so that a cut-off run leaves no half label map.

    The host also writes plans.json and dataset.json where it predicts; in the user's folder they could replace others.
    """
    name = case.target.name.removesuffix(ending)
    with TemporaryDirectory(dir=case.target.parent, prefix=".umamba-") as spare:
        predictor.predict_from_files_sequential(
            [[str(file) for file in case.files]], [str(Path(spare) / name)], save_probabilities=save_probabilities
        )
        for suffix in (".npz", ".pkl", ending) if save_probabilities else (ending,):
            (Path(spare) / f"{name}{suffix}").replace(case.target.with_name(f"{name}{suffix}"))

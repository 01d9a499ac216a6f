"""`umamba predict`: label maps from a trained model, through nnU-Net's own predictor."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umamba_seg.device import choose_device, set_import_time_variables, use_threads
from umamba_seg.errors import DataError, ModelError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.nnunet import activate
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.run_record import RunRecord
from umamba_seg.workspace import channel_names, read_json

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What was predicted, or with `is_dry_run` would be."""

    model: Path
    folds: tuple[int | str, ...]
    device: str
    files: tuple[Path, ...]
    seconds: float = 0.0
    is_dry_run: bool = False


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
    overwrite: bool = False,
    dry_run: bool = False,
    report: OnProgress = ignore,
) -> PredictResult:
    """Segment an image or a folder of images.

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
        overwrite: Replace label maps that are there.
        dry_run: Only say what would be done.
        report: Told how far it is.
    """
    began = time.monotonic()
    set_import_time_variables()
    folder = Path(model)
    dataset_json = _check_model(folder)
    chosen_folds = _check_folds(folder, folds)
    if not 0 < step <= 1:
        raise UsageError(f"the step must be above 0 and at most 1, got {step:g}", where="--step", code="bad-number")
    ending = str(dataset_json["file_ending"])
    cases = _cases(Path(inputs), ending, channel_names(dataset_json))
    targets = _targets(cases, Path(output), ending, is_single=Path(inputs).is_file())
    _check_targets(targets, overwrite)
    chosen_device = choose_device(device)
    if dry_run:
        return PredictResult(folder, chosen_folds, chosen_device, tuple(targets), is_dry_run=True)

    record = RunRecord.begin(
        "predict", device=chosen_device, inputs=[file for files in cases.values() for file in files]
    )
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    use_threads(chosen_device)
    with told_when_full(targets[0].parent):
        predictor = _load(folder, chosen_folds, mirror, step, chosen_device)
        for done, (files, target) in enumerate(zip(cases.values(), targets, strict=True)):
            report(Progress("predict", done, len(cases), "cases", {"case": target.name.removesuffix(ending)}))
            _predict_case(predictor, files, target, ending, save_probabilities)
        report(Progress("predict", len(cases), len(cases), "cases"))
        record.finish(targets[0].parent, outputs=targets)
    return PredictResult(folder, chosen_folds, chosen_device, tuple(targets), time.monotonic() - began)


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


def _cases(inputs: Path, ending: str, channels: list[str]) -> dict[str, list[Path]]:
    """Case identifiers with their files, one per channel."""
    if not inputs.exists():
        raise DataError("there is no such image or folder", where=str(inputs), code="no-input")
    files = sorted(path for path in inputs.iterdir() if path.name.endswith(ending)) if inputs.is_dir() else [inputs]
    files = [path for path in files if path.name.endswith(ending)]
    if not files:
        found = sorted({"".join(path.suffixes) for path in (inputs.iterdir() if inputs.is_dir() else [inputs])})
        what = f"the model reads {ending} images; found {', '.join(found) or 'nothing'}"
        raise DataError(what, where=str(inputs), how=[f"convert the images to {ending}"], code="no-images")
    if len(channels) == 1:
        return {path.name.removesuffix(ending).removesuffix("_0000"): [path] for path in files}
    names = sorted({path.name.removesuffix(ending)[:-5] for path in files})
    cases = {
        name: [path.parent / f"{name}_{index:04d}{ending}" for index in range(len(channels))]
        for name in names
        for path in files[:1]
    }
    for name, wanted in cases.items():
        missing = [channel for channel, path in zip(channels, wanted, strict=True) if not path.is_file()]
        if missing:
            what = f"the model needs {', '.join(channels)}; case {name!r} lacks {', '.join(missing)}"
            how = [f"name the files {name}_0000{ending}, {name}_0001{ending} …, in this order of channels"]
            raise DataError(what, where=str(inputs), how=how, code="missing-channels")
    return cases


def _targets(cases: dict[str, list[Path]], output: Path, ending: str, *, is_single: bool) -> list[Path]:
    if is_single and output.name.endswith(ending):
        return [output]
    if output.is_file():
        raise UsageError("the output must be a folder", where=str(output), code="output-is-a-file")
    return [output / f"{name}{ending}" for name in cases]


def _check_targets(targets: list[Path], overwrite: bool) -> None:
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        what = f"{len(there)} of {len(targets)} label maps are there already, the first is {there[0].name}"
        how = ["choose another output folder, or --overwrite"]
        raise UsageError(what, where=str(there[0].parent), how=how, code="output-exists")


def _load(folder: Path, folds: tuple[int | str, ...], mirror: bool, step: float, device: str) -> Any:
    activate()
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


def _predict_case(predictor: Any, files: list[Path], target: Path, ending: str, save_probabilities: bool) -> None:
    """Predict one case in a folder of its own and move the result, so that a cut-off run leaves no half label map.

    The host also writes plans.json and dataset.json where it predicts; in the user's folder they could replace others.
    """
    name = target.name.removesuffix(ending)
    with TemporaryDirectory(dir=target.parent, prefix=".umamba-") as spare:
        try:
            predictor.predict_from_files_sequential(
                [[str(file) for file in files]], [str(Path(spare) / name)], save_probabilities=save_probabilities
            )
        except RuntimeError as fault:
            reason = str(fault).strip().splitlines()[-1]
            raise DataError(
                f"the image cannot be segmented: {reason}", where=str(files[0]), code="unreadable-image"
            ) from fault
        for suffix in (".npz", ".pkl", ending) if save_probabilities else (ending,):
            (Path(spare) / f"{name}{suffix}").replace(target.with_name(f"{name}{suffix}"))

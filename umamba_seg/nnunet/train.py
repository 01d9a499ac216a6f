"""`umamba train`: an nnU-Net training that reports, stops cleanly and resumes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umamba_seg.device import choose_device, set_import_time_variables, use_threads
from umamba_seg.errors import DataError, Interrupted, ResourceError, UsageError, unknown
from umamba_seg.files import told_when_full
from umamba_seg.progress import OnProgress, ignore
from umamba_seg.workspace import Dataset, find_dataset, locate, read_json

if TYPE_CHECKING:
    from umamba_seg.training.managed import ManagedTraining

HOST_FOLDS = 5


@dataclass(frozen=True, slots=True)
class TrainResult:
    """One trained fold, or with `is_dry_run` the one that would be trained."""

    dataset: str
    folder: Path
    device: str
    resumed_from: Path | None
    is_dry_run: bool = False
    was_complete: bool = False
    epochs: int = 0
    seconds: float = 0.0
    pseudo_dice: tuple[float, ...] = ()
    validation_dice: float | None = None


def train(
    dataset: str,
    configuration: str,
    fold: int | str,
    *,
    plans: str = "umambaBot8GPlans",
    trainer: str = "nnUNetTrainer",
    epochs: int | None = None,
    iterations: int | None = None,
    device: str | None = None,
    checkpoint_every: int = 10,
    restart: bool = False,
    validate: bool = True,
    save_probabilities: bool = False,
    dry_run: bool = False,
    workspace: Path | None = None,
    report: OnProgress = ignore,
) -> TrainResult:
    """Train one fold, going on where an earlier run of the same call stopped.

    Args:
        dataset: Id, name or folder of the data set.
        configuration: `2d`, `3d_fullres` and so on, as in the plans.
        fold: 0 to 4, or `all`.
        plans: Name of the plans, as `plan` printed it.
        trainer: nnU-Net trainer class.
        epochs: Instead of the trainer's 1000; the run's folder then says so.
        iterations: For each epoch, instead of 250; the run's folder then says so.
        device: `cpu`, `cuda`, `mps`; by default the best there is.
        checkpoint_every: Epochs between two checkpoints.
        restart: Begin anew although checkpoints exist; they are replaced as training goes on.
        validate: Predict the fold's validation cases at the end.
        save_probabilities: Keep the validation's probabilities, which nnU-Net's ensembling needs.
        dry_run: Only say what would be done.
        workspace: Where the three folders are when nnU-Net's variables are not set.
        report: Told how far it is.

    Raises:
        Interrupted: A stop was asked for; everything is saved and the same call goes on.
    """
    began = time.monotonic()
    set_import_time_variables()
    chosen_device = choose_device(device)
    place = locate(workspace)
    found = find_dataset(dataset, place)
    loaded = _load_plans(found, plans, configuration)
    checked_fold = _check_fold(found, loaded, configuration, fold)
    _check_lengths(epochs=epochs, iterations=iterations, checkpoint_every=checkpoint_every)

    from umamba_seg.nnunet.trainers import find_trainer
    from umamba_seg.training.checkpoints import newest
    from umamba_seg.training.managed import Length, managed
    from umamba_seg.training.stop import stop_on_signals

    trainer_class = find_trainer(trainer)
    length = Length(epochs, iterations)
    name = f"{trainer}{length.suffix()}__{plans}__{configuration}"
    folder = found.results / name / f"fold_{checked_fold}"
    checkpoint = None if restart else newest(folder)
    if dry_run:
        return TrainResult(found.name, folder, chosen_device, checkpoint, is_dry_run=True)

    place.make()
    use_threads(chosen_device)
    with place.active():
        with stop_on_signals() as stop, told_when_full(folder), _told_when_out_of_memory(chosen_device):
            kind = managed(trainer_class, length=length, checkpoint_every=checkpoint_every, stop=stop, report=report)
            run = _begin(kind, loaded, configuration, checked_fold, found.description(), chosen_device, checkpoint)
            was_complete = run.current_epoch >= run.num_epochs
            if not was_complete:
                _train(run)
        dice = _validate(run, save_probabilities) if validate else None
    return TrainResult(
        dataset=found.name,
        folder=folder,
        device=chosen_device,
        resumed_from=checkpoint,
        was_complete=was_complete,
        epochs=run.num_epochs,
        seconds=time.monotonic() - began,
        pseudo_dice=tuple(float(value) for value in run.logger.get_value("dice_per_class_or_region", step=-1)),
        validation_dice=dice,
    )


def _load_plans(dataset: Dataset, name: str, configuration: str) -> dict[str, Any]:
    """Plans by name, after a look whether they hold the configuration and its data are preprocessed."""
    file = dataset.preprocessed / f"{name}.json"
    if not file.is_file():
        there = sorted(path.stem for path in dataset.preprocessed.glob("*Plans*.json"))
        how = [f"make them with  umamba plan {dataset.id}"]
        raise unknown("plans", name, there, where=dataset.name, how=how)
    plans = read_json(file)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise DataError(
            "these are not nnU-Net plans: there is no block of configurations", where=str(file), code="bad-plans"
        )
    if configuration not in configurations:
        raise unknown("configuration", configuration, configurations, where=name)
    return plans


def _check_fold(dataset: Dataset, plans: dict[str, Any], configuration: str, fold: int | str) -> int | str:
    """The fold as nnU-Net wants it. Upstream makes a random split of a fold that does not exist; we refuse it."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    data = dataset.preprocessed / PlansManager(plans).get_configuration(configuration).data_identifier
    cases = list(data.glob("*.pkl"))
    if not cases:
        how = [f"umamba plan {dataset.id} -c {configuration}  preprocesses them"]
        raise DataError("there are no preprocessed cases", where=str(data), how=how, code="not-preprocessed")
    if fold == "all":
        return fold
    splits = dataset.preprocessed / "splits_final.json"
    folds = len(json.loads(splits.read_text())) if splits.is_file() else HOST_FOLDS
    if not str(fold).isdecimal() or int(fold) >= folds:
        raise UsageError(f"the fold must be 0 to {folds - 1}, or all; got {fold}", where="FOLD", code="unknown-fold")
    if not splits.is_file() and len(cases) < HOST_FOLDS:
        how = ["train on  all", f"or write {splits} with folds of your own"]
        raise DataError(
            f"{len(cases)} cases cannot be split into {HOST_FOLDS} folds", where=dataset.name, how=how, code="few-cases"
        )
    return int(fold)


def _check_lengths(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UsageError(
                f"must be at least 1, got {number}", where=f"--{name.replace('_', '-')}", code="bad-number"
            )


def _begin(
    trainer: "type[ManagedTraining]",
    plans: dict[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: dict[str, object],
    device: str,
    checkpoint: Path | None,
) -> "ManagedTraining":
    import torch

    from umamba_seg.training.checkpoints import unreadable

    plans = {**plans, "continue_training": checkpoint is not None}
    run = trainer(plans, configuration, fold, dataset_json, torch.device(device))
    run.initialize()
    if checkpoint is not None:
        try:
            run.load_checkpoint(str(checkpoint))
        except (RuntimeError, EOFError, KeyError, ValueError, OSError) as fault:
            raise unreadable(checkpoint, fault) from fault
    return run


def _train(run: "ManagedTraining") -> None:
    from umamba_seg.training.managed import StopRequested

    try:
        run.run_training()
    except StopRequested:
        what = f"saved in epoch {run.current_epoch + 1} of {run.num_epochs}; that epoch is repeated"
        how = ["run the same command to go on"]
        raise Interrupted(what, where=str(run.folder), how=how, code="interrupted") from None


def _validate(run: "ManagedTraining", save_probabilities: bool) -> float | None:
    """Mean foreground Dice of the fold's validation cases, predicted unless that was done before."""
    summary = run.folder / "validation" / "summary.json"
    if not summary.is_file() or save_probabilities:
        try:
            run.perform_actual_validation(save_probabilities)
        except KeyboardInterrupt:
            how = ["run the same command to validate", "or add --no-validation"]
            raise Interrupted("the model is trained, its validation is not", where=str(run.folder), how=how) from None
    mean = read_json(summary).get("foreground_mean")
    return float(mean["Dice"]) if isinstance(mean, dict) else None


@contextmanager
def _told_when_out_of_memory(device: str) -> Iterator[None]:
    """Turn a failed allocation into an error that names what lowers the need."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if not isinstance(fault, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in str(fault):
            raise
        how = ["plan with a smaller --vram or --batch, under another --plans-name"]
        raise ResourceError(str(fault).splitlines()[0], where=device, how=how, code=f"{device}-memory") from fault

"""`umamba train`: an nnU-Net training that reports, stops cleanly and resumes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umamba_seg.device import choose_device, set_import_time_variables, use_threads
from umamba_seg.errors import Interrupted, ModelError, ResourceError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.nnunet.train_checks import check_fold, check_numbers, load_plans
from umamba_seg.progress import OnProgress, ignore
from umamba_seg.workers import told_of_deaths
from umamba_seg.workspace import find_dataset, locate, read_json

TRAINED = "the model is trained, its validation is not"

if TYPE_CHECKING:
    from umamba_seg.training.managed import ManagedTraining


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
    pseudo_dice: tuple[float | None, ...] = ()
    validation_dice: float | None = None
    precision: str | None = None
    seed: int | None = None
    non_finite: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What a call of `train` asks for, as it goes to other processes; the fields are the arguments of `train`."""

    dataset: str
    configuration: str
    fold: int | str
    plans: str
    trainer: str
    device: str
    workspace: Path | None
    length: tuple[int | None, int | None]
    settings: dict[str, Any] = field(default_factory=dict)
    pretrained: Path | None = None
    restart: bool = False
    validate: bool = True
    save_probabilities: bool = False
    dry_run: bool = False


def train(
    dataset: str,
    configuration: str,
    fold: int | str,
    *,
    plans: str = "umambaBot8GPlans",
    trainer: str = "nnUNetTrainer",
    epochs: int | None = None,
    iterations: int | None = None,
    precision: str | None = None,
    device: str | None = None,
    processes: int = 1,
    checkpoint_every: int = 10,
    seconds: float | None = None,
    seed: int | None = None,
    compiles: bool | None = None,
    pretrained: Path | None = None,
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
        precision: `fp32`, `fp16` or `bf16`; `auto` measures whether 16 bits pay; None computes as nnU-Net does.
        device: `cpu`, `cuda`, `mps`; by default the best there is.
        processes: How many train together, each on a GPU of its own, or on the CPU. Under torchrun its number counts.
        checkpoint_every: Epochs between two checkpoints.
        seconds: Save and stop after so many.
        seed: Of all random numbers; by default a fresh one, which the checkpoint remembers.
        compiles: Whether to use torch.compile; None as nnU-Net does.
        pretrained: A checkpoint whose weights to begin with, all but those of the segmentation heads.
        restart: Begin anew; checkpoints that are there move to a folder beside.
        validate: Predict the fold's validation cases at the end.
        save_probabilities: Keep the validation's probabilities, which nnU-Net's ensembling needs.
        dry_run: Only say what would be done.
        workspace: Where the three folders are when nnU-Net's variables are not set.
        report: Told how far it is.

    Raises:
        Interrupted: A stop was asked for; everything is saved and the same call goes on.
    """
    check_numbers(epochs=epochs, iterations=iterations, checkpoint_every=checkpoint_every, gpus=processes)
    check_numbers(time_limit=seconds)
    set_import_time_variables()
    request = Request(
        dataset=dataset,
        configuration=configuration,
        fold=fold,
        plans=plans,
        trainer=trainer,
        device=choose_device(device),
        workspace=workspace,
        length=(epochs, iterations),
        settings={
            "checkpoint_every": checkpoint_every,
            "precision": precision,
            "seed": seed,
            "compiles": compiles,
            "seconds": seconds,
        },
        pretrained=pretrained,
        restart=restart,
        validate=validate,
        save_probabilities=save_probabilities,
        dry_run=dry_run,
    )
    if processes == 1 or dry_run:
        return train_here(request, report)
    from umamba_seg.training.processes import in_processes, is_launched

    if is_launched():
        raise UsageError("torchrun has started this process already", where="--gpus", how=["leave --gpus out"])
    _check_gpus(request.device, processes)
    return in_processes(processes, lambda: train_here(request, report), train_here, request)


def train_here(request: Request, report: OnProgress = ignore) -> TrainResult:
    """Train in this process, alone or as one of those that the environment tells of."""
    from umamba_seg.nnunet.trainers import find_trainer
    from umamba_seg.training import precision
    from umamba_seg.training.checkpoints import BEST, FINAL, LATEST, PREVIOUS, newest, set_aside
    from umamba_seg.training.managed import METRICS_FILE, Length, Settings, managed
    from umamba_seg.training.processes import process_group, rank
    from umamba_seg.training.stop import stop_on_signals

    began = time.monotonic()
    place = locate(request.workspace)
    found = find_dataset(request.dataset, place)
    plans = load_plans(found, request.plans, request.configuration)
    fold = check_fold(found, plans, request.configuration, request.fold)
    precision.check(request.settings["precision"], request.device)
    trainer_class, length = find_trainer(request.trainer), Length(*request.length)
    name = f"{request.trainer}{length.suffix()}__{request.plans}__{request.configuration}"
    folder = found.results / name / f"fold_{fold}"
    checkpoint = None if request.restart else newest(folder)
    if request.dry_run:
        return TrainResult(found.name, folder, request.device, checkpoint, is_dry_run=True)

    if request.restart and rank() == 0:
        set_aside(folder, (FINAL, LATEST, PREVIOUS, BEST, METRICS_FILE))
    place.make()
    use_threads(request.device)
    with place.active(), process_group(request.device):
        with stop_on_signals() as stop, told_when_full(folder), _told_when_out_of_memory(request.device):
            settings = Settings(**request.settings)
            kind = managed(trainer_class, length=length, settings=settings, stop=stop, report=report)
            run = _begin(kind, plans, request, fold, found.description(), checkpoint)
            was_complete = run.current_epoch >= run.num_epochs
            if not was_complete:
                _train(run)
        dice = _validate(run, request.save_probabilities) if request.validate else None
    last_dice = run.logger.get_value("dice_per_class_or_region", step=-1)
    return TrainResult(
        dataset=found.name,
        folder=folder,
        device=request.device,
        resumed_from=checkpoint,
        was_complete=was_complete,
        epochs=run.num_epochs,
        seconds=time.monotonic() - began,
        pseudo_dice=tuple(float(value) if isfinite(value) else None for value in last_dice),
        validation_dice=dice,
        precision=run.used_precision,
        seed=run.seed,
        non_finite=run.non_finite,
    )


def _check_gpus(device: str, processes: int) -> None:
    import torch

    if device == "cuda" and processes > torch.cuda.device_count():
        what = f"this machine has {torch.cuda.device_count()} GPUs, not {processes}"
        raise UsageError(what, where="--gpus", how=["torchrun spreads a training over machines"], code="few-gpus")


def _begin(
    trainer: "type[ManagedTraining]",
    plans: dict[str, Any],
    request: Request,
    fold: int | str,
    dataset_json: dict[str, object],
    checkpoint: Path | None,
) -> "ManagedTraining":
    import torch

    from umamba_seg.training.checkpoints import unreadable

    plans = {**plans, "continue_training": checkpoint is not None}
    run = trainer(plans, request.configuration, fold, dataset_json, torch.device(request.device))
    run.initialize()
    if checkpoint is not None:
        try:
            run.load_checkpoint(str(checkpoint))
        except (RuntimeError, EOFError, KeyError, ValueError, OSError) as fault:
            raise unreadable(checkpoint, fault) from fault
        _check_seed(run, checkpoint)
    elif request.pretrained is not None:
        _load_pretrained(run, request.pretrained)
    return run


def _check_seed(run: "ManagedTraining", checkpoint: Path) -> None:
    from umamba_seg.training.checkpoints import read_provenance

    begun_with = read_provenance(checkpoint).get("seed", run.seed)
    if begun_with != run.seed:
        how = [f"leave --seed out, or give {begun_with}, to go on", "or begin anew with --restart"]
        raise UsageError(
            f"this training was begun with seed {begun_with}, not {run.seed}",
            where="--seed",
            how=how,
            code="other-seed",
        )


def _load_pretrained(run: "ManagedTraining", file: Path) -> None:
    from umamba_seg.training.pretrained import load_all_but_heads

    if not file.is_file():
        how = ["give a file such as RUN/fold_0/checkpoint_final.pth"]
        raise ModelError("there is no such checkpoint", where=str(file), how=how, code="no-checkpoint")
    load_all_but_heads(run.network, file)


def _train(run: "ManagedTraining") -> None:
    from umamba_seg.training.managed import StopRequested

    try:
        run.run_training()
    except StopRequested:
        what = f"saved in epoch {run.current_epoch + 1} of {run.num_epochs}"
        how = ["run the same command to go on"]
        raise Interrupted(what, where=str(run.folder), how=how, code="interrupted") from None


def _validate(run: "ManagedTraining", save_probabilities: bool) -> float | None:
    """Mean foreground Dice of the fold's validation cases, predicted unless that was done before."""
    summary = run.folder / "validation" / "summary.json"
    if not summary.is_file() or save_probabilities:
        try:
            with told_of_deaths(
                "writing predictions", where=str(run.folder), fewer="nnUNet_def_n_proc=1", stays=TRAINED
            ):
                run.perform_actual_validation(save_probabilities)
        except KeyboardInterrupt:
            how = ["run the same command to validate", "or add --no-validation"]
            raise Interrupted(TRAINED, where=str(run.folder), how=how) from None
    if not summary.is_file():  # another process writes it
        return None
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

"""Training that tells how far it is, stops when asked, and goes on where it stopped; over any nnU-Net trainer."""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from umamba_seg.errors import UmambaError
from umamba_seg.files import told_when_full, write_text
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.training.checkpoints import LATEST, PREVIOUS, PROVENANCE, PortableCheckpoints, read_provenance
from umamba_seg.training.distributed import DistributedTraining
from umamba_seg.training.guard import GuardedUpdates
from umamba_seg.training.loading import ToldLoading
from umamba_seg.training.precision import AUTO, ChosenPrecision
from umamba_seg.training.randomness import fresh_seed, random_states, restore_random_states, seed_all
from umamba_seg.training.run_state import SECONDS_BETWEEN_SIGNS, STOP_FILE, RunState, State, own_identity, spoken
from umamba_seg.training.run_state import write as write_run_state
from umamba_seg.training.stop import StopSignal
from umamba_seg.training.usage import Usage, log_to_tensorboard

HOST_EPOCHS, HOST_ITERATIONS, HOST_VALIDATION_ITERATIONS = 1000, 250, 50
METRICS_FILE = "progress.jsonl"
INITIAL, TRAINING, VALIDATION = 0, 1, 2  # random numbers of different purposes come from different streams
WORTH_TELLING = 0.05


@dataclass(frozen=True, slots=True)
class Length:
    """How long to train; None leaves a number to the trainer."""

    epochs: int | None = None
    iterations: int | None = None

    def suffix(self) -> str:
        """What a run of another length than nnU-Net's adds to its folder name, so that results are never mixed."""
        epochs = f"e{self.epochs}" if self.epochs not in (None, HOST_EPOCHS) else ""
        iterations = f"i{self.iterations}" if self.iterations not in (None, HOST_ITERATIONS) else ""
        return f"_{epochs}{iterations}" if epochs or iterations else ""

    def validation_iterations(self) -> int:
        """As many per training iteration as nnU-Net has, at least one."""
        return max(1, round((self.iterations or HOST_ITERATIONS) * HOST_VALIDATION_ITERATIONS / HOST_ITERATIONS))


class StopRequested(Exception):  # noqa: N818  (not an error: it unwinds the loop to where the state is saved)
    """Raised inside the training loop once a stop was asked for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a training is run; what is trained is the trainer's affair.

    Args:
        checkpoint_every: Epochs between two checkpoints.
        precision: See `precision.ChosenPrecision`; None leaves it to the trainer.
        seed: Of all random numbers; None draws one, which the checkpoint remembers.
        compiles: Whether torch.compile is used; None leaves it to nnU-Net.
        seconds: Stop after so many, None for no limit.
    """

    checkpoint_every: int = 10
    precision: str | None = None
    seed: int | None = None
    compiles: bool | None = None
    seconds: float | None = None


class ManagedTraining(ChosenPrecision, GuardedUpdates, DistributedTraining, ToldLoading, PortableCheckpoints):
    """nnU-Net's loop with reports, a clean stop, frequent checkpoints and exact resume; `managed` mixes it in.

    A stop takes effect between two iterations. What is saved then holds the iterations of the epoch so far and the
    states of all random generators; so with augmentation in the training process (nnUNet_n_proc_DA=0), a training that
    was stopped and resumed ends with the same weights as one that was not.
    """

    length: ClassVar[Length] = Length()
    settings: ClassVar[Settings] = Settings()
    stop: ClassVar[StopSignal] = StopSignal()
    report: OnProgress

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host introspects this signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.save_every = self.settings.checkpoint_every
        if self.length.epochs is not None:
            self.num_epochs = self.length.epochs
        if self.length.iterations is not None:
            self.num_iterations_per_epoch = self.length.iterations
            self.num_val_iterations_per_epoch = self.length.validation_iterations()
        self.seed = fresh_seed() if self.settings.seed is None else self.settings.seed
        self.usage = Usage(self.device)
        self._deadline = None if self.settings.seconds is None else time.monotonic() + self.settings.seconds
        self._losses: list[float] = []  # of this epoch
        self._resumes_at: dict[str, Any] | None = None  # random states in the midst of an epoch
        self._last_sign = 0.0

    @property
    def folder(self) -> Path:
        """Where this fold's files go."""
        return Path(self.output_folder)

    def initialize(self) -> None:
        """As the host's; initial weights come from the seed."""
        seed_all(self.seed, INITIAL)
        super().initialize()

    def _do_i_compile(self) -> bool:
        return super()._do_i_compile() if self.settings.compiles is None else self.settings.compiles

    def run_training(self) -> None:
        """Train to the end, or until a stop is asked for: then save, and raise StopRequested."""
        (self.folder / STOP_FILE).unlink(missing_ok=True)
        if self.local_rank == 0:
            forget_epochs_from(self.current_epoch, self.folder / METRICS_FILE)
        try:
            self.on_train_start()
            while self.current_epoch < self.num_epochs:
                self._run_epoch()
        except StopRequested:
            self._save_unfinished_epoch()
            self._close_loaders()
            self._sign("stopped")
            raise
        except BaseException as fault:
            self._sign("failed", cause=f"{type(fault).__name__}: {fault}".splitlines()[0])
            self._close_loaders()  # else the program waits at its end for workers that nothing ends
            raise
        self.on_train_end()
        self._sign("done")

    def _run_epoch(self) -> None:
        """One epoch of the host's loop, each part with random numbers of its own."""
        self.on_epoch_start()
        self.on_train_epoch_start()
        if self._resumes_at is None or self.is_ddp:  # the states are those of one process
            seed_all(self.seed, TRAINING, self.current_epoch, self.local_rank, len(self._losses))
        else:
            restore_random_states(self._resumes_at)
        self._resumes_at = None
        self._tell()
        while len(self._losses) < self.num_iterations_per_epoch:
            self._stop_if_asked()
            with self.usage.waiting():
                batch = self._next_of(self.dataloader_train)
            self._losses.append(float(self.train_step(batch)["loss"]))
            self._tell(loss=self._losses[-1])
        self.on_train_epoch_end([{"loss": np.float32(loss)} for loss in self._losses])
        seed_all(self.seed, VALIDATION, self.current_epoch, self.local_rank)
        with torch.no_grad():
            self.on_validation_epoch_start()
            outputs = []
            for _ in range(self.num_val_iterations_per_epoch):
                self._stop_if_asked()
                outputs.append(self.validation_step(self._next_of(self.dataloader_val)))
            self.on_validation_epoch_end(outputs)
        self.on_epoch_end()

    def _next_of(self, loader: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """A batch; where a worker is gone, what was trained of this epoch is saved."""
        try:
            return next(loader)
        except UmambaError:
            self._save_unfinished_epoch()
            raise

    def on_epoch_start(self) -> None:
        """As the host's; memory and waiting are counted for each epoch."""
        super().on_epoch_start()
        self.usage.restart()

    def on_epoch_end(self) -> None:
        """As the host's, and a line of metrics for programs."""
        self._losses = []
        with told_when_full(self.folder):
            super().on_epoch_end()
            if self.local_rank == 0:
                metrics = self._metrics()
                with (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(metrics) + "\n")
                log_to_tensorboard(self.folder, metrics)
        self._sign("running")

    def on_train_end(self) -> None:
        """As the host's, with the last report."""
        super().on_train_end()
        (self.folder / PREVIOUS).unlink(missing_ok=True)
        self._tell()

    def checkpoint(self) -> dict[str, Any]:
        """As of every trainer of ours, with what an exact resume needs."""
        content = super().checkpoint()
        content[PROVENANCE] |= {
            "seed": self.seed,
            "precision": self.used_precision,
            "non_finite": self.non_finite,
            "losses": list(self._losses),
            "random_states": random_states() if self._losses else None,
        }
        return content

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """As the host's; then the seed, the precision that was measured, and the place within an epoch."""
        super().load_checkpoint(filename_or_checkpoint)
        ours = read_provenance(filename_or_checkpoint)
        if self.settings.seed is None and "seed" in ours:
            self.seed = ours["seed"]
        if self.precision == AUTO and ours.get("precision") is not None:
            self.use_precision(ours["precision"])
        self.non_finite = ours.get("non_finite", 0)
        self._losses, self._resumes_at = list(ours.get("losses", [])), ours.get("random_states")

    def _stop_if_asked(self) -> None:
        is_late = self._deadline is not None and time.monotonic() > self._deadline
        is_wished = self.stop.is_set or is_late or (self.folder / STOP_FILE).exists()
        if self.any_process(is_wished):
            raise StopRequested

    def _save_unfinished_epoch(self) -> None:
        """Keep the iterations of this epoch; the half-made entries of the log are made again."""
        log = self.logger.get_checkpoint()
        for key, values in log.items():
            log[key] = values[: self.current_epoch]
        self.current_epoch -= 1  # a checkpoint names the epoch after the one that ended
        self.save_checkpoint(str(self.folder / LATEST))
        self.current_epoch += 1

    def _close_loaders(self) -> None:
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader._finish()

    def _tell(self, loss: float | None = None) -> None:
        facts = {"epoch": f"{min(self.current_epoch + 1, self.num_epochs)}/{self.num_epochs}"}
        if loss is not None:
            facts["loss"] = f"{loss:.3f}"
        if dice := self._logged("dice_per_class_or_region"):
            facts["pseudo Dice"] = " ".join(f"{value:.2f}" for value in dice[-1])
        if (seconds := self._seconds_left()) is not None:
            facts["left"] = spoken(seconds)
        if (share := self.usage.waiting_share()) > WORTH_TELLING:
            facts["waiting for data"] = f"{100 * share:.0f} %"
        facts["memory"] = f"{self.usage.peak_gb():.1f} GB"
        if self.non_finite:
            facts["skipped"] = str(self.non_finite)
        done = self.current_epoch * self.num_iterations_per_epoch + len(self._losses)
        total = self.num_epochs * self.num_iterations_per_epoch
        self.report(Progress(f"train {self.plans_manager.plans_name}", done, total, "iterations", facts))
        if time.monotonic() - self._last_sign > SECONDS_BETWEEN_SIGNS:
            self._sign("running")

    def _sign(self, state: State, cause: str = "") -> None:
        """Leave word of how far the run is."""
        if self.local_rank != 0:
            return
        self._last_sign = time.monotonic()
        dice = self._logged("dice_per_class_or_region")
        write_run_state(
            self.folder,
            RunState(
                state=state,
                **own_identity(),
                heartbeat=time.time(),
                epoch=self.current_epoch,
                epochs=self.num_epochs,
                seconds_left=self._seconds_left(),
                pseudo_dice=tuple(_number(value) for value in dice[-1]) if dice else (),
                best=None if self._best_ema is None else _number(self._best_ema),
                cause=cause,
            ),
        )

    def _seconds_left(self) -> float | None:
        """The median of the last epochs' times, for the epochs to come."""
        times = self._epoch_seconds()[-5:]
        if not times:
            return None
        left = self.num_epochs - self.current_epoch - len(self._losses) / self.num_iterations_per_epoch
        return max(left, 0.0) * statistics.median(times)

    def _epoch_seconds(self) -> list[float]:
        ends = self._logged("epoch_end_timestamps")
        starts = self._logged("epoch_start_timestamps")[: len(ends)]
        return [end - start for start, end in zip(starts, ends, strict=True)]

    def _logged(self, key: str) -> list[Any]:
        values: list[Any] = self.logger.get_value(key, step=None)
        return values

    def _metrics(self) -> dict[str, Any]:
        return {
            "epoch": self.current_epoch - 1,  # the host has moved on to the next
            "train_loss": _number(self._logged("train_losses")[-1]),
            "val_loss": _number(self._logged("val_losses")[-1]),
            "pseudo_dice": [_number(value) for value in self._logged("dice_per_class_or_region")[-1]],
            "learning_rate": float(self._logged("lrs")[-1]),
            "seconds": round(self._epoch_seconds()[-1], 2),
            "waiting_for_data": round(self.usage.waiting_share(), 3),
            "peak_memory_gb": round(self.usage.peak_gb(), 3),
            "non_finite": self.non_finite,
            "skipped_by_scaler": self.skipped_by_scaler,
            "precision": self.used_precision,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def forget_epochs_from(epoch: int, file: Path) -> None:
    """Drop the metrics of epochs that are trained again, and a line that a kill has cut off."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["epoch"] < epoch:
                kept.append(line + "\n")
        except ValueError:
            continue
    write_text(file, "".join(kept))


def _number(value: Any) -> float | None:
    """JSON knows no NaN, which is the pseudo Dice of a class that no validation patch showed."""
    return round(float(value), 5) if np.isfinite(value) else None


def managed(
    trainer: type[nnUNetTrainer],
    *,
    length: Length,
    settings: Settings | None = None,
    stop: StopSignal | None = None,
    report: OnProgress = ignore,
) -> type[ManagedTraining]:
    """A class that behaves as `trainer`, and as `ManagedTraining`; its name gives the run's folder."""
    is_portable = issubclass(trainer, PortableCheckpoints)
    settings = settings or Settings()
    attributes = {
        "__module__": trainer.__module__,
        "checkpoint_trainer": trainer.checkpoint_trainer if is_portable else trainer.__name__,
        "length": length,
        "settings": settings,
        "precision": settings.precision or getattr(trainer, "precision", None),
        "stop": stop or StopSignal(),
        "report": staticmethod(report),
    }
    return type(trainer.__name__ + length.suffix(), (ManagedTraining, trainer), attributes)

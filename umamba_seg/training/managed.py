"""Training that tells how far it is, stops when asked, and goes on where it stopped; over any nnU-Net trainer."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from umamba_seg.files import told_when_full
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.training.checkpoints import LATEST, PortableCheckpoints
from umamba_seg.training.stop import StopSignal

HOST_EPOCHS, HOST_ITERATIONS, HOST_VALIDATION_ITERATIONS = 1000, 250, 50
METRICS_FILE = "progress.jsonl"


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


class StopRequested(Exception):  # noqa: N818  (not an error: it unwinds nnU-Net's loop to where the state is saved)
    """Raised inside the training loop once a stop was asked for."""


class ManagedTraining(PortableCheckpoints):
    """nnU-Net's loop with reports, a clean stop and frequent checkpoints. `managed` mixes it over a trainer."""

    length: ClassVar[Length] = Length()
    checkpoint_every: ClassVar[int] = 10
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
        self.save_every = self.checkpoint_every
        if self.length.epochs is not None:
            self.num_epochs = self.length.epochs
        if self.length.iterations is not None:
            self.num_iterations_per_epoch = self.length.iterations
            self.num_val_iterations_per_epoch = self.length.validation_iterations()
        self._iteration = 0

    @property
    def folder(self) -> Path:
        """Where this fold's files go."""
        return Path(self.output_folder)

    def run_training(self) -> None:
        """Train to the end, or until a stop is asked for: then save, and raise StopRequested."""
        try:
            super().run_training()
        except StopRequested:
            self._save_unfinished_epoch()
            self._close_loaders()
            raise

    def on_train_epoch_start(self) -> None:
        """Count the epoch's iterations from 0."""
        super().on_train_epoch_start()
        self._iteration = 0
        self._tell()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One iteration, then a report; the place where a stop takes effect."""
        result: dict[str, Any] = super().train_step(batch)
        self._iteration += 1
        self._tell(loss=float(result["loss"]))
        self._stop_if_asked()
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the host's; a stop takes effect here too."""
        result: dict[str, Any] = super().validation_step(batch)
        self._stop_if_asked()
        return result

    def on_epoch_end(self) -> None:
        """As the host's, and a line of metrics for programs."""
        with told_when_full(self.folder):
            super().on_epoch_end()
            with (self.folder / METRICS_FILE).open("a") as file:
                file.write(json.dumps(self._metrics()) + "\n")

    def on_train_end(self) -> None:
        """As the host's, with the last report."""
        super().on_train_end()
        self._iteration = 0
        self._tell()

    def _stop_if_asked(self) -> None:
        if self.stop.is_set:
            raise StopRequested

    def _save_unfinished_epoch(self) -> None:
        """Keep what was learned; the epoch itself is repeated, so its half-made log entries are dropped."""
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
        done = self.current_epoch * self.num_iterations_per_epoch + self._iteration
        total = self.num_epochs * self.num_iterations_per_epoch
        self.report(Progress(f"train {self.plans_manager.plans_name}", done, total, "iterations", facts))

    def _seconds_left(self) -> float | None:
        """The median of the last epochs' times, for the epochs to come."""
        times = self._epoch_seconds()[-5:]
        if not times:
            return None
        left = self.num_epochs - self.current_epoch - self._iteration / self.num_iterations_per_epoch
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
            "train_loss": float(self._logged("train_losses")[-1]),
            "val_loss": float(self._logged("val_losses")[-1]),
            "pseudo_dice": [_number(value) for value in self._logged("dice_per_class_or_region")[-1]],
            "learning_rate": float(self._logged("lrs")[-1]),
            "seconds": round(self._epoch_seconds()[-1], 2),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _number(value: Any) -> float | None:
    """JSON knows no NaN, which is the pseudo Dice of a class that no validation patch showed."""
    return None if np.isnan(value) else round(float(value), 5)


def spoken(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def managed(
    trainer: type[nnUNetTrainer],
    *,
    length: Length,
    checkpoint_every: int = 10,
    stop: StopSignal | None = None,
    report: OnProgress = ignore,
) -> type[ManagedTraining]:
    """A class that behaves as `trainer`, and as `ManagedTraining`; its name gives the run's folder."""
    is_portable = issubclass(trainer, PortableCheckpoints)
    attributes = {
        "__module__": trainer.__module__,
        "checkpoint_trainer": trainer.checkpoint_trainer if is_portable else trainer.__name__,
        "length": length,
        "checkpoint_every": checkpoint_every,
        "stop": stop or StopSignal(),
        "report": staticmethod(report),
    }
    return type(trainer.__name__ + length.suffix(), (ManagedTraining, trainer), attributes)

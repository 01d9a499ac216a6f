"""What a training uses: memory, and time spent waiting for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch


class Usage:
    """Counters of one epoch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self.restart()

    def restart(self) -> None:
        """Begin to count."""
        self._began, self._waited = time.perf_counter(), 0.0
        self._peak_bytes = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def waiting_share(self) -> float:
        """Of the time since the start."""
        return self._waited / max(time.perf_counter() - self._began, 1e-9)

    def peak_gb(self) -> float:
        """The most memory that was seen: of the GPU, or else of this process at the moments when it was asked."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device) / 2**30
        self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)
        return self._peak_bytes / 2**30


def log_to_tensorboard(folder: Path, metrics: dict[str, Any]) -> None:
    """Add an epoch to TensorBoard's log, where TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard") as writer:
        for name in ("train_loss", "val_loss", "learning_rate", "seconds"):
            if metrics[name] is not None:
                writer.add_scalar(name, metrics[name], metrics["epoch"])
        for number, dice in enumerate(metrics["pseudo_dice"]):
            if dice is not None:
                writer.add_scalar(f"pseudo_dice/{number}", dice, metrics["epoch"])

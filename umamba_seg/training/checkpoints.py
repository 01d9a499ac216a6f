"""nnU-Net checkpoints that any nnU-Net can read, written so that a crash never leaves half of one.

The stock trainer stores its own class name, by which prediction looks the class up. Since the plans name the network,
stock `nnUNetTrainer` builds it as well; so we store that name and keep the truth, with versions, under the key
`umamba_seg`.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from umamba_seg import __version__
from umamba_seg.errors import ModelError
from umamba_seg.files import replacing

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"
PREVIOUS = "checkpoint_previous.pth"  # what was LATEST before, should that one be damaged
PROVENANCE = "umamba_seg"
HOST_TRAINER = "nnUNetTrainer"


class PortableCheckpoints(nnUNetTrainer):
    """What a trainer needs so that its results load in stock nnU-Net without this package's trainers."""

    checkpoint_trainer: ClassVar[str] = HOST_TRAINER

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint beside the old one and rename it."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        path = Path(filename)
        content = self.checkpoint()
        if path.name == LATEST:
            keep_previous(path)
        write(content, path)

    def checkpoint(self) -> dict[str, Any]:
        """The stock checkpoint of the epoch that has just ended, under a portable trainer name, with provenance."""
        return {
            "network_weights": bare(self.network).state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.checkpoint_trainer,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            PROVENANCE: self.provenance(),
        }

    def provenance(self) -> dict[str, Any]:
        """Who made this: trainer, versions, network and a hash of the plans; plain values only."""
        return {
            "trainer": type(self).__name__,
            "version": __version__,
            "nnunetv2": version("nnunetv2"),
            "torch": str(torch.__version__),  # a class of its own, which weights_only does not read
            "network": self.configuration_manager.network_arch_class_name,
            "mixer": self.configuration_manager.network_arch_init_kwargs.get("mixer"),
            "plans_sha256": plans_hash(self.plans_manager.plans),
        }


def bare(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of DDP and torch.compile."""
    for wrapper in ("module", "_orig_mod"):
        network = getattr(network, wrapper, network)
    return network


def plans_hash(plans: dict[str, Any]) -> str:
    """A hash that changes with any value of the plans, and not with their layout."""
    return hashlib.sha256(json.dumps(plans, sort_keys=True, default=str).encode()).hexdigest()


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; a failure leaves the old file as it was."""
    with replacing(path) as file:
        torch.save(checkpoint, file)


def keep_previous(latest: Path) -> None:
    """Give the newest checkpoint a second name, which it keeps when its first is given to another."""
    if not latest.is_file():
        return
    previous, new = latest.with_name(PREVIOUS), latest.with_name(f".{PREVIOUS}.part")
    new.unlink(missing_ok=True)
    try:
        os.link(latest, new)
    except OSError:  # a file system without links
        shutil.copy2(latest, new)
    new.replace(previous)


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, by nnU-Net's own order; None where there is none."""
    return next((folder / name for name in (FINAL, LATEST, PREVIOUS, BEST) if (folder / name).is_file()), None)


def set_aside(folder: Path, names: Sequence[str]) -> Path | None:
    """Move files of an earlier training into a folder of their own; None where there are none."""
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        return None
    aside = folder / time.strftime("before_restart_%Y%m%dT%H%M%S")
    aside.mkdir(parents=True)
    for file in files:
        file.rename(aside / file.name)
    return aside


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What we have noted in a checkpoint; empty for one that is not ours."""
    content = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    noted: dict[str, Any] = content.get(PROVENANCE, {})
    return noted


def unreadable(path: Path, fault: Exception) -> ModelError:
    """What to say of a checkpoint that does not load."""
    reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
    others = [path.with_name(name) for name in (LATEST, PREVIOUS, BEST) if name != path.name]
    before = next((other.name for other in others if other.is_file()), None)
    way = f"move it away to go on from {before}" if before else "there is no other checkpoint to go on from"
    how = [way, "or begin anew with --restart"]
    return ModelError(f"the checkpoint cannot be used: {reason}", where=str(path), how=how, code="bad-checkpoint")

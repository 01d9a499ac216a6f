"""Memory and time of real training steps of planned networks, measured in a process of their own.

The steps are those of nnU-Net's trainer, on random images: loss, optimiser, precision and compilation are what training
has. Reading and augmenting data are not measured.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from umamba_seg.errors import ResourceError
from umamba_seg.planning.describe import Measured
from umamba_seg.progress import OnProgress, Progress

ITERATIONS = 20
ITERATIONS_OF_AN_EPOCH = 250
_WARM_UP = 2
_MOST_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 0.002
_OUT_OF_MEMORY = 6
_GB = 1e9


def probe(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any], device: str, report: OnProgress
) -> Measured:
    """Train one configuration for 20 steps, or for a minute where that is less.

    Raises:
        ResourceError: It does not fit into the memory of the device.
    """
    step = f"probe {plans['plans_name']} {configuration}"
    task = {"plans": plans, "configuration": configuration, "dataset_json": dataset_json, "device": device}
    report(Progress(step, 0, ITERATIONS, "iterations"))
    with TemporaryDirectory() as folder, _started(folder) as process:
        assert process.stdout is not None
        _send(process, task)
        told = {}
        for line in process.stdout:
            told = json.loads(line)
            if "done" in told:
                report(Progress(step, told["done"], ITERATIONS, "iterations"))
        code = process.wait()
    if code == _OUT_OF_MEMORY or code < 0:
        how = ["plan for less memory with --vram, or with a smaller --batch"]
        what = f"{plans['plans_name']} {configuration} does not fit into the memory of this {device} device"
        raise ResourceError(what, where="--probe", how=how, code=f"{device}-memory")
    if code != 0:
        raise RuntimeError(f"the probe of {plans['plans_name']} {configuration} ended with {code}")
    report(Progress(step, ITERATIONS, ITERATIONS, "iterations"))
    return Measured(**told)


@contextmanager
def _started(folder: str) -> Iterator["subprocess.Popen[str]"]:
    """The process that measures; it does not outlive the block."""
    program = subprocess.Popen(
        [sys.executable, "-m", "umamba_seg.planning.probe"],
        env={**os.environ, "nnUNet_results": folder},  # the trainer opens a log there
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program as process:
        try:
            yield process
        finally:
            process.kill()


def _send(process: "subprocess.Popen[str]", task: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(task))
    process.stdin.close()


def measure(
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    device: str,
    *,
    on_iteration: Callable[[int], None],
) -> Measured:
    """Train in this process, whose memory must not have been used for anything large before."""
    from umamba_seg.device import use_threads

    use_threads(device)
    with _Growth(device) as growth:
        trainer = _trainer(plans, configuration, dataset_json, device)
        batch = _random_batch(trainer)
        seconds: list[float] = []
        began = time.monotonic()
        for done in range(_WARM_UP + ITERATIONS):
            start = time.perf_counter()
            trainer.train_step(batch)  # ends with the loss on the CPU, so that a GPU has done its work
            seconds.append(time.perf_counter() - start)
            on_iteration(max(0, done + 1 - _WARM_UP))
            if time.monotonic() - began > _MOST_SECONDS:
                break
    timed = seconds[_WARM_UP:] or seconds[-1:]
    return Measured(device, growth.bytes / _GB, ITERATIONS_OF_AN_EPOCH * median(timed), len(timed))


def _trainer(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], device: str) -> Any:
    """nnU-Net's trainer with all that a step needs; its own `initialize` wants preprocessed data too."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    trainer = nnUNetTrainer({**plans, "continue_training": False}, configuration, 0, dataset_json, torch.device(device))
    trainer.batch_size = trainer.configuration_manager.batch_size
    trainer.num_input_channels = determine_num_input_channels(
        trainer.plans_manager, trainer.configuration_manager, dataset_json
    )
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        trainer.enable_deep_supervision,
    ).to(trainer.device)
    if trainer._do_i_compile():
        trainer.network = torch.compile(trainer.network)
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    return trainer


def _random_batch(trainer: Any) -> dict[str, Any]:
    patch, batch = trainer.configuration_manager.patch_size, trainer.configuration_manager.batch_size
    labels = trainer.label_manager
    heads = labels.num_segmentation_heads
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        size = [round(n * share) for n, share in zip(patch, scale, strict=True)]
        if labels.has_regions:
            channels = heads + (labels.ignore_label is not None)
            targets.append(torch.randint(2, (batch, channels, *size)).float())
        else:
            targets.append(torch.randint(heads, (batch, 1, *size)).float())
    return {"data": torch.randn(batch, trainer.num_input_channels, *patch), "target": targets}


class _Growth:
    """The most memory that a block of code makes this process hold, or torch reserve on a GPU."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, 0
        self._done, self._process = threading.Event(), psutil.Process()

    def __enter__(self) -> "_Growth":
        self._before = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.device == "cuda":
            self.bytes = torch.cuda.max_memory_reserved()
            return
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS_BETWEEN_LOOKS):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def _main() -> int:
    told, sys.stdout = sys.stdout, sys.stderr  # nnU-Net prints

    def tell(content: Mapping[str, Any]) -> None:
        told.write(json.dumps(content) + "\n")
        told.flush()

    try:
        found = measure(**json.load(sys.stdin), on_iteration=lambda done: tell({"done": done}))
    except (MemoryError, torch.OutOfMemoryError):
        return _OUT_OF_MEMORY
    except RuntimeError as fault:
        if "can't allocate memory" in str(fault):
            return _OUT_OF_MEMORY
        raise
    tell(asdict(found))
    return 0


if __name__ == "__main__":
    sys.exit(_main())

"""The arithmetic of training: nnU-Net's own, or one that the user has asked for.

nnU-Net computes in float16 on CUDA and in float32 elsewhere, and asks autocast for its default type. So that default is
what is changed here, around the steps of any trainer: no step is written anew. With float32 as its type, autocast does
nothing. On a CPU the host opens no autocast, so one is opened around it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_map_only

from umamba_seg.errors import MachineError, UsageError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
AUTO = "auto"
NAMES = (*DTYPES, AUTO)
WORTHWHILE = 1.3  # times as fast as fp32, for `auto` to take 16 bits
CLOSE = 0.02  # and no further from fp32, in the 2-norm of the logits


def check(precision: str | None, device_type: str) -> None:
    """Refuse a name that is none, and what this machine cannot compute in."""
    if precision is not None and precision not in NAMES:
        raise UsageError(
            f"precision must be one of {', '.join(NAMES)}; got {precision!r}", where="--precision", code="bad-precision"
        )
    if precision == "bf16" and device_type == "cuda" and not torch.cuda.is_bf16_supported():
        raise MachineError("this GPU does not compute in bfloat16", how=["--precision fp16"], code="no-bf16")


@contextmanager
def computing_in(precision: str, device_type: str) -> Iterator[None]:
    """Autocast to a type wherever the host opens it, and on a CPU all through the block."""
    before = torch.get_autocast_dtype(device_type)
    torch.set_autocast_dtype(device_type, DTYPES[precision])
    is_opened_here = device_type == "cpu" and precision != "fp32"
    try:
        with torch.autocast(device_type, DTYPES[precision], enabled=is_opened_here):
            # an autocast of the host's own lies inside and is enabled again
            yield
    finally:
        torch.set_autocast_dtype(device_type, before)


class ChosenPrecision(nnUNetTrainer):
    """A trainer whose steps compute in `precision`; None leaves them to the host, `auto` measures.

    The prediction of the validation cases at the end keeps the host's arithmetic, but for what autocast means on CUDA.
    """

    precision: ClassVar[str | None] = None
    used_precision: str | None = None
    grad_scaler: torch.amp.GradScaler | None

    def initialize(self) -> None:
        """As the host's, then choose."""
        super().initialize()
        if self.precision is not None:
            self.use_precision(self.precision)

    def use_precision(self, precision: str) -> None:
        """Compute in a precision from now on."""
        if precision == AUTO:
            precision = self._measured_precision()
        self.used_precision = precision
        self.grad_scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        if self.device.type == "cpu" and precision != "fp32":
            self.network.register_forward_hook(_logits_in_float32)
        self.print_to_log_file(f"Precision of training: {precision}")

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the trainer's."""
        with self._computing():
            result: dict[str, Any] = super().train_step(batch)
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the trainer's."""
        with self._computing():
            result: dict[str, Any] = super().validation_step(batch)
        return result

    @contextmanager
    def _computing(self) -> Iterator[None]:
        if self.used_precision is None:
            yield
            return
        with computing_in(self.used_precision, self.device.type):
            yield

    def _measured_precision(self) -> str:
        shape = (self.batch_size, self.num_input_channels, *self.configuration_manager.patch_size)
        found = compare_precisions(self.network, torch.randn(shape, device=self.device))
        self.print_to_log_file(found.sentence())
        chosen = [found.chosen]
        if self.is_ddp:
            distributed.broadcast_object_list(chosen)  # all compute in what the first has measured
        return chosen[0]


def _logits_in_float32(module: nn.Module, inputs: object, output: Any) -> Any:
    """A CPU's autocast leaves losses in the type of the logits, which 16 bits make too coarse."""
    return tree_map_only(Tensor, lambda x: x.float(), output)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A training step in float32 against one in 16 bits.

    Args:
        rival: What float32 was compared with.
        speed: How many times as fast the rival is.
        error: Of its logits, relative, in the 2-norm.
    """

    rival: str
    speed: float
    error: float

    @property
    def chosen(self) -> str:
        """The rival where it pays and stays close."""
        return self.rival if self.speed >= WORTHWHILE and self.error <= CLOSE else "fp32"

    def sentence(self) -> str:
        """What was measured and chosen."""
        return (
            f"--precision auto: a step in {self.rival} is {self.speed:.2f} times as fast as in fp32, its logits are "
            f"{100 * self.error:.1f} % off; taken at {WORTHWHILE} times and {100 * CLOSE:.0f} %: {self.chosen}"
        )


def compare_precisions(network: nn.Module, images: Tensor, turns: int = 2) -> Comparison:
    """Time forward and backward on random images; weights, gradients and random numbers are left as they were."""
    device_type = images.device.type
    rival = "fp16" if device_type == "cuda" else "bf16"
    cuda = [images.device] if device_type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        outputs, seconds = {}, {}
        for precision in ("fp32", rival):

            def step(precision: str = precision) -> Tensor:
                with torch.autocast(device_type, DTYPES[precision], enabled=precision != "fp32"):
                    logits = network(images)
                logits = list(logits) if isinstance(logits, (list, tuple)) else [logits]
                torch.stack([x.float().square().mean() for x in logits]).sum().backward()
                return logits[0].detach().float()

            outputs[precision] = step()
            seconds[precision] = _seconds(step, images.device)
            if seconds[precision] < 2 * seconds["fp32"]:  # a CPU that emulates 16 bits may need minutes
                seconds[precision] = min(seconds[precision], *(_seconds(step, images.device) for _ in range(turns)))
            network.zero_grad(set_to_none=True)
    error = torch.linalg.vector_norm(outputs[rival] - outputs["fp32"]) / torch.linalg.vector_norm(outputs["fp32"])
    return Comparison(rival, seconds["fp32"] / seconds[rival], float(error.nan_to_num(float("inf"))))


def _seconds(step: Callable[[], Tensor], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - began

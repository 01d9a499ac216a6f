"""What networks cost here, and what of it their mixers: one training step of each beside that of its twins.

Times are the least of a few turns in which a network and its twins alternate. Memory is the most that a process of its
own holds during a step, beyond what it held before the network was made.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from umamba_seg.bench.memory import peak_growth
from umamba_seg.errors import MachineError
from umamba_seg.networks import NETWORKS, NetworkRecord, create, find
from umamba_seg.networks.reference_plan import INPUT_CHANNELS, NUM_CLASSES, reference_architecture

TWINS = ("none", "conv")
MB = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        network: Its name.
        mixer: What fills its slots.
        parameters: How many numbers are trained.
        forward_ms: One image, no gradients.
        step_ms: Forward, backward and a step of SGD with one image.
        memory_mb: The most that this step holds.
        forward_to_twin: `forward_ms` as a multiple of that of the twin without a mixer.
        step_to_twin: The same of `step_ms`.
        memory_to_twin: The same of `memory_mb`.
    """

    network: str
    mixer: str
    parameters: int
    forward_ms: float
    step_ms: float
    memory_mb: float
    forward_to_twin: float
    step_to_twin: float
    memory_to_twin: float


def measure(
    names: Sequence[str] = (),
    *,
    mixers: Sequence[str] = (),
    dims: int = 3,
    patch_size: Sequence[int] | None = None,
    device: str = "cpu",
    turns: int = 3,
) -> Iterator[Row]:
    """The rows of each network: with its own mixer, with others that are asked for, and with those of its twins.

    Args:
        names: Networks; empty means all of so many axes.
        mixers: Further mixers to fill their slots with.
        dims: Spatial axes.
        patch_size: Size of the image; 64³ or 256² unless given.
        device: `cpu` or `cuda`.
        turns: How often each is timed.
    """
    size = tuple(patch_size or {2: (256, 256), 3: (64, 64, 64)}[dims])
    records = [find(name) for name in names] or [record for record in NETWORKS.values() if dims in record.dims]
    for record in records:
        yield from _beside_its_twins(record, mixers, size, device, turns)


def _beside_its_twins(
    record: NetworkRecord, mixers: Sequence[str], size: tuple[int, ...], device: str, turns: int
) -> Iterator[Row]:
    chosen = list(dict.fromkeys([record.mixer, *mixers, *TWINS]))
    steps = {mixer: _Step(record, mixer, size, device) for mixer in chosen}
    forward = _least({mixer: step.forward for mixer, step in steps.items()}, turns, device)
    training = _least({mixer: step.train for mixer, step in steps.items()}, turns, device)
    memory = {mixer: _memory_mb(record.name, mixer, size, device) for mixer in chosen}
    for mixer in chosen:
        yield Row(
            record.name,
            mixer,
            steps[mixer].parameters,
            forward[mixer],
            training[mixer],
            memory[mixer],
            forward[mixer] / forward["none"],
            training[mixer] / training["none"],
            memory[mixer] / memory["none"],
        )


class _Step:
    """A network and one image to train it on."""

    def __init__(self, record: NetworkRecord, mixer: str, size: tuple[int, ...], device: str) -> None:
        block = reference_architecture(record, len(size), patch_size=size, mixer=mixer)
        torch.manual_seed(0)
        network = create(record.name, INPUT_CHANNELS, NUM_CLASSES, deep_supervision=True, **block["arch_kwargs"])
        self.network: nn.Module = network.to(device)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.image = torch.randn(1, INPUT_CHANNELS, *size, device=device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-9, momentum=0.99, nesterov=True)

    def forward(self) -> None:
        with torch.no_grad():
            self.network(self.image)

    def train(self) -> None:
        self.optimizer.zero_grad()
        outputs: list[Tensor] = self.network(self.image)
        torch.stack([y.square().mean() for y in outputs]).sum().backward()
        self.optimizer.step()


def _least(jobs: dict[str, Callable[[], None]], turns: int, device: str) -> dict[str, float]:
    """Milliseconds of each job, the least of a few turns; one more comes first, to compile and to fetch memory."""
    best = dict.fromkeys(jobs, float("inf"))
    for turn in range(turns + 1):
        for name, job in jobs.items():
            _wait(device)
            began = time.perf_counter()
            job()
            _wait(device)
            if turn:
                best[name] = min(best[name], 1e3 * (time.perf_counter() - began))
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _memory_mb(name: str, mixer: str, size: tuple[int, ...], device: str) -> float:
    """The memory of a step, in a process of its own: what others have held before counts there too."""
    told = json.dumps({"name": name, "mixer": mixer, "size": size, "device": device})
    answer = subprocess.run([sys.executable, "-m", __name__, told], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise MachineError(f"the memory of {name} with {mixer} could not be measured: {reason}", code="bench-failed")
    return float(answer.stdout.split()[-1])


def _measured_memory_mb(name: str, mixer: str, size: Sequence[int], device: str) -> float:
    def train() -> "_Step":
        step = _Step(find(name), mixer, tuple(size), device)
        step.train()
        return step

    if device == "cuda":
        train()
        return torch.cuda.max_memory_allocated() / MB
    _Step(find(name), mixer, tuple(size), "meta")  # imports what is needed
    return peak_growth(train) / MB


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [asdict(row) for row in rows]


if __name__ == "__main__":
    print(_measured_memory_mb(**json.loads(sys.argv[1])))

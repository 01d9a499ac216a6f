"""What preprocessing will need, told before it begins: disk, memory, and how many cases at once fit into it."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil

from umamba_seg.device import cores

GB = 1e9
MOST_PROCESSES = 8
_GB_OF_A_WORKER = 0.7  # a process that has imported torch and nnU-Net
_SHARE_OF_FREE_MEMORY = 0.8
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class DataEstimate:
    """What one configuration takes to preprocess.

    Args:
        configuration: Its name.
        cases: How many cases are to be made.
        disk_gb: Their size before compression, which halves it as a rule.
        disk_free_gb: What is free where they go.
        memory_gb: What so many processes hold at most.
        memory_free_gb: What is free now.
        processes: How many cases are worked on at once.
    """

    configuration: str
    cases: int
    disk_gb: float
    disk_free_gb: float
    memory_gb: float
    memory_free_gb: float
    processes: int

    def facts(self) -> dict[str, str]:
        """What it takes, for those who watch."""
        return {
            "disk": f"up to {self.disk_gb:.2g} GB ({self.disk_free_gb:.3g} free)",
            "memory": f"about {self.memory_gb:.2g} GB ({self.memory_free_gb:.3g} free) with -j {self.processes}",
        }

    def warnings(self) -> list[str]:
        """What is not likely to fit."""
        found = []
        if self.disk_gb > self.disk_free_gb:
            found.append(f"{self.configuration} takes up to {self.disk_gb:.3g} GB; {self.disk_free_gb:.3g} GB are free")
        if self.memory_gb > self.memory_free_gb:
            less = "; a lower -j takes less" if self.processes > 1 else ""
            found.append(
                f"preprocessing {self.configuration} takes about {self.memory_gb:.2g} GB of memory; "
                f"{self.memory_free_gb:.2g} GB are free{less}"
            )
        return found


def estimate(
    configuration: str,
    entry: Mapping[str, Any],
    transpose: list[int],
    fingerprint: Mapping[str, Any],
    folder: Path,
    *,
    cases: int,
    processes: int | None,
) -> DataEstimate:
    """Estimate from the sizes in a fingerprint.

    Args:
        configuration: Its name.
        entry: What the plans say about it.
        transpose: `transpose_forward` of the plans.
        fingerprint: The data set's.
        folder: Where the data go.
        cases: How many are to be made.
        processes: As asked for; None takes as many as cores and memory allow.
    """
    channels = len(entry["normalization_schemes"])
    sizes = list(_sizes(entry["spacing"], transpose, fingerprint))
    largest = max((_peak_bytes(before, after, channels) for before, after in sizes), default=0.0) / GB
    mean = sum(after for _, after in sizes) / max(len(sizes), 1)
    free = free_memory() / GB
    of_one = largest + _GB_OF_A_WORKER
    most = max(1, min(MOST_PROCESSES, cores(), cases or 1, int(free * _SHARE_OF_FREE_MEMORY / of_one)))
    used = processes or most
    return DataEstimate(
        configuration,
        cases,
        cases * mean * (4 * channels + 2) / GB,  # float32 images, int16 labels
        shutil.disk_usage(_existing(folder)).free / GB,
        used * of_one,
        free,
        used,
    )


def _sizes(spacing: list[float], transpose: list[int], fingerprint: Mapping[str, Any]) -> "list[tuple[float, float]]":
    """Voxels of each case as it is and resampled."""
    found = []
    for shape, edges in zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True):
        before = [shape[axis] for axis in transpose]
        edges = [edges[axis] for axis in transpose]
        target = [edges[0], *spacing] if len(spacing) == 2 else spacing
        after = [n * edge / wanted for n, edge, wanted in zip(before, edges, target, strict=True)]
        found.append((float(prod(before)), prod(after)))
    return found


def _peak_bytes(before: float, after: float, channels: int) -> float:
    """Images as read, cropped and resampled in float32 with their labels, and one channel at work in float64."""
    return (2 * before + after) * (4 * channels + 2) + 24 * max(before, after)


def free_memory() -> float:
    """Bytes that may still be taken, by the machine and by the container this runs in."""
    limits = [float(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):  # no container, or no limit
        limits.append(float((_CGROUP / "memory.max").read_text()) - float((_CGROUP / "memory.current").read_text()))
    return max(min(limits), 0.0)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)

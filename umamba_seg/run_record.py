"""`umamba_run.json`: what ran, on what, with which versions, beside every result."""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from umamba_seg import __version__
from umamba_seg.files import write_text

FILE = "umamba_run.json"
PACKAGES = ("torch", "nnunetv2", "monai", "numba", "triton", "numpy", "SimpleITK")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The record of a run that has begun."""

    content: dict[str, Any]
    began: float

    @classmethod
    def begin(cls, command: str, *, device: str, inputs: Sequence[Path]) -> "RunRecord":
        """Note everything that is known before the work."""
        content = {
            "umamba": __version__,
            "command": command,
            "arguments": sys.argv[1:],
            "versions": {"python": platform.python_version(), **installed_versions()},
            "machine": {"system": platform.platform(), "device": device},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "inputs": {str(path): sha256(path) for path in inputs},
        }
        return cls(content, time.monotonic())

    def finish(self, folder: Path, *, outputs: Sequence[Path], exit_code: int = 0) -> None:
        """Write the record into the folder of the results."""
        ending = {
            "seconds": round(time.monotonic() - self.began, 1),
            "outputs": [path.name for path in outputs],
            "exit_code": exit_code,
        }
        write_text(folder / FILE, json.dumps({**self.content, **ending}, indent=1))


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide on results, from their metadata; nothing is imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A process that has imported what our commands import from others, and forks for each command.

Importing takes a command seconds and most tests of commands do little else. Nothing of ours or nnU-Net's is imported
before the fork: what they read from the environment is what the command is given.
"""

import faulthandler
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from runpy import run_module
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
# stock commands too: beside other programs, threads that spin while they wait make a training step take minutes
PATIENT = {"OMP_WAIT_POLICY": "passive"}
LONGEST = 900  # seconds
MODULES = (
    "matplotlib.pyplot", "numpy", "pandas", "pydantic", "rich.console", "scipy.ndimage", "scipy.stats", "SimpleITK",
    "skimage.transform", "sklearn.metrics", "sympy", "tifffile", "torch", "torch._dynamo", "typer",
)  # fmt: skip


def run_forked(
    module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run a module as `python -m` would; its exit code and what it wrote to stdout and stderr."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as written:
        command = {
            "module": module, "arguments": [*arguments], "folder": str(folder), "variables": {**variables},
            "written": written,
        }  # fmt: skip
        print(json.dumps(command), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        out, err = ((Path(written) / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return code, out, err


@cache
def _server() -> "subprocess.Popen[str]":
    """Lives as long as this process: it ends when its stdin does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.command_server"],
        cwd=ROOT,
        env={**os.environ, **PATIENT, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def _serve() -> None:
    for name in MODULES:
        import_module(name)
    gc.freeze()  # a collection in a child would copy all memory
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(command: dict[str, Any]) -> None:
    """Be the process of a command, whose exit code is that of this process."""
    os.environ.clear()
    os.environ.update(command["variables"])
    os.chdir(command["folder"])
    written, new = Path(command["written"]), os.O_WRONLY | os.O_CREAT
    for number, (path, flags) in enumerate([(os.devnull, os.O_RDONLY), (written / "out", new), (written / "err", new)]):
        os.dup2(os.open(path, flags), number)
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    sys.path[0] = command["folder"]
    sys.argv[1:] = command["arguments"]
    run_module(command["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()

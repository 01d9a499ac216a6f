"""What a training tells others while it runs: `run_state.json` in the fold's folder; and a wish to stop it."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from umamba_seg.files import write_text

FILE, STOP_FILE = "run_state.json", "stop_requested"
State = Literal["running", "stopped", "failed", "done", "killed"]
SECONDS_BETWEEN_SIGNS = 10.0
SILENCE = 300.0  # on another machine, a running training that says nothing for so long is taken for dead


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is.

    Args:
        state: What it was when it last spoke; see `now` for what it is.
        pid: Its process, on `host`.
        started: When that process began, in seconds since 1970: another process may get its number.
        heartbeat: When it last spoke.
        seconds_left: What it expects, None where it does not know yet.
        cause: Why it failed.
    """

    state: State
    pid: int
    host: str
    started: float
    heartbeat: float
    epoch: int
    epochs: int
    seconds_left: float | None = None
    pseudo_dice: tuple[float | None, ...] = ()
    best: float | None = None
    cause: str = ""

    def now(self) -> State:
        """What the run is: one that says it runs, and is not there any more, was killed."""
        if self.state != "running":
            return self.state
        if self.host != socket.gethostname():
            return "running" if time.time() - self.heartbeat < SILENCE else "killed"
        try:
            is_same = abs(psutil.Process(self.pid).create_time() - self.started) < 2
        except psutil.NoSuchProcess:
            return "killed"
        return "running" if is_same else "killed"


def own_identity() -> dict[str, Any]:
    """Who this process is."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": psutil.Process().create_time()}


def write(folder: Path, state: RunState) -> None:
    """Put the state where `read` finds it."""
    write_text(folder / FILE, json.dumps(asdict(state), indent=1))


def read(folder: Path) -> RunState | None:
    """The state of the run in a folder, None where there is none that can be read."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return RunState(**{**content, "pseudo_dice": tuple(content["pseudo_dice"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def request_stop(folder: Path) -> None:
    """Ask the run in a folder to save and end."""
    write_text(folder / STOP_FILE, "")


def spoken(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

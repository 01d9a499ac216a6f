"""What tests of the command line share."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.command_server import LONGEST, PATIENT, ROOT, run_forked

SHARED = ROOT.parent / "shared"
DATASET = "Dataset900_Phantoms"
PROGRAM = "umamba_seg.cli.main"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass
class Umamba:
    """Runs `umamba …` and other programs as a user would."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object, **variables: str) -> Answer:
        """Run our program in a process that has imported other packages already, unless Python is told things."""
        if any(name.startswith("PYTHON") for name in self.variables | variables):
            return self.run(sys.executable, "-m", PROGRAM, *arguments, **variables)
        return Answer(*run_forked(PROGRAM, [*map(str, arguments)], self.folder, self._environment(variables)))

    def run(self, *command: object, **variables: str) -> Answer:
        process = self.start(*command, **variables)
        out, err = process.communicate(timeout=LONGEST + 60)  # children of one that was ended may still hold its pipes
        return Answer(process.returncode, out, err)

    def start(self, *command: object, **variables: str) -> subprocess.Popen[str]:
        """A program, which says where it hangs if it never ends."""
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env=self._environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        end = threading.Timer(LONGEST, process.send_signal, [signal.SIGABRT])
        end.daemon = True
        end.start()
        return process

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        told = {"COLUMNS": "160", "PYTHONFAULTHANDLER": "1"}
        return {**PATIENT, **os.environ, **told, **self.variables, **variables}

    def plan_phantoms(self, network: str, configuration: str, patch: str, name: str, *more: object) -> Answer:
        sizes = ("--patch", patch, "--batch", 2, "--plans-name", name)
        # planning sets torch's threads to the number of loaders, which must not be 0 there
        return self("plan", 900, "--network", network, "-c", configuration, *sizes, "-j", 1, *more)


def first_child(process: subprocess.Popen[str], word: str) -> psutil.Process | None:
    """The oldest child of a program with this word in its command line, if there is one."""
    found, children = [], []
    with suppress(psutil.Error):  # it has ended meanwhile
        children = psutil.Process(process.pid).children()
    for child in children:
        with suppress(psutil.Error):
            if any(word in part for part in child.cmdline()):
                found.append(child)
    return min(found, key=lambda child: child.pid, default=None)


def mends(answer: Answer, *, code: int) -> str:
    """The error text of an answer that failed as it should: the right code, a way to mend, no traceback."""
    assert answer.code == code, answer.err + answer.out
    assert "Traceback" not in answer.err
    assert "mend:" in answer.err
    return answer.err

"""The trainings of a workspace, as their folders tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umamba_seg.errors import ModelError, UsageError
from umamba_seg.training import run_state
from umamba_seg.workspace import Workspace

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True, slots=True)
class Run:
    """One fold that is, was or will be trained.

    Args:
        folder: Of the fold.
        state: `running`, `stopped`, `failed`, `killed`, `done`, or `unknown` for one that left no word.
        told: What it said last; None for a training by a stock command.
    """

    folder: Path
    state: str
    told: run_state.RunState | None

    @property
    def name(self) -> str:
        """Trainer, plans and configuration, and the fold."""
        return f"{self.folder.parent.name} {self.folder.name}"

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.folder.parent.parent.name


def find_runs(place: Workspace, dataset: str | None = None) -> Iterator[Run]:
    """The runs of one data set, or of all, in the order of their names."""
    for folder in sorted(place.results.glob(f"{dataset or 'Dataset*'}/*__*__*/fold_*")):
        told = run_state.read(folder)
        state = told.now() if told is not None else ("done" if (folder / FINAL).is_file() else "unknown")
        yield Run(folder, state, told)


def stop_run(folder: Path) -> None:
    """Ask a running training to save and end."""
    told = run_state.read(folder)
    if told is None:
        raise ModelError("no training of ours runs here", where=str(folder), how=["umamba status lists them"])
    if told.now() != "running":
        how = ["umamba status shows what runs"]
        raise UsageError(f"this training is not running: {told.now()}", where=str(folder), how=how, code="not-running")
    run_state.request_stop(folder)

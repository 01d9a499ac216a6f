"""`umamba status`."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import WorkspaceOption, introduce_workspace
from umamba_seg.cli.output import Output

if TYPE_CHECKING:
    from umamba_seg.nnunet.runs import Run

SECONDS_BETWEEN_LOOKS = 10.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status", examples=("umamba status", "umamba status 4 --watch"))(status)


def status(
    out: Output,
    dataset: Annotated[str | None, typer.Argument(help="Id, name or folder; all unless given.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every ten seconds until none runs.")] = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Show the trainings of a workspace: how far they are, and why they ended."""
    from umamba_seg.nnunet.runs import find_runs
    from umamba_seg.workspace import find_dataset

    place = introduce_workspace(out, workspace)
    name = find_dataset(dataset, place).name if dataset else None
    while True:
        runs = list(find_runs(place, name))
        _show(out, runs)
        if not watch or not any(run.state == "running" for run in runs):
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return {
        "runs": [
            {
                "dataset": run.dataset,
                "folder": str(run.folder),
                **(asdict(run.told) if run.told is not None else {}),
                "state": run.state,
            }
            for run in runs
        ]
    }


def _show(out: Output, runs: "list[Run]") -> None:
    from rich.table import Table

    from umamba_seg.training.run_state import spoken

    if not runs:
        out.line("no training is in this workspace")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "epoch", "left", "last pseudo Dice", "best mean", "cause"):
        table.add_column(heading)
    for run in runs:
        told = run.told
        if told is None:
            table.add_row(run.name, run.state)
            continue
        left = spoken(told.seconds_left) if told.seconds_left is not None and run.state == "running" else ""
        dice = " ".join("–" if value is None else f"{value:.2f}" for value in told.pseudo_dice)
        best = "" if told.best is None else f"{told.best:.3f}"
        cause = told.cause or ("its process is gone; the same command goes on" if run.state == "killed" else "")
        table.add_row(run.name, run.state, f"{told.epoch}/{told.epochs}", left, dice, best, cause)
    out.show(table)

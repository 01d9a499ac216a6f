"""`umamba stop`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "stop", examples=("umamba stop RESULTS/nnUNetTrainer__umambaBot8GPlans__3d_fullres/fold_0",))(stop)


def stop(
    out: Output, run: Annotated[Path, typer.Argument(help="Folder of a fold, as `umamba status --json` names it.")]
) -> Payload:
    """Ask a running training to save after its current iteration and to end. The same train command goes on later."""
    from umamba_seg.nnunet.runs import stop_run

    stop_run(run)
    out.line(f"{run}: asked to save and end")
    return {"folder": str(run)}

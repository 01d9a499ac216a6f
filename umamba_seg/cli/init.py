"""`umamba init`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DryRunOption
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", examples=("umamba init ~/segmentation", "umamba init D:/segmentation --shell ps1"))(init)


def init(
    out: Output,
    folder: Annotated[Path, typer.Argument(help="Where the three folders go.", metavar="DIR")],
    shell: Annotated[
        str | None,
        typer.Option(help="bash, zsh, fish, ps1 or conda; by default the shell in use.", rich_help_panel="Output"),
    ] = None,
    dry_run: DryRunOption = False,
) -> Payload:
    """Make nnU-Net's three folders and print the lines to put in a profile."""
    from umamba_seg.workspace import Workspace, current_shell, export_lines

    place = Workspace.below(folder)
    lines = export_lines(place, shell or current_shell())
    if not dry_run:
        place.make()
    verb = "would make" if dry_run else "made"
    out.remark(f"{verb} three folders in {place.raw.parent}; put these lines into your shell's profile:")
    for line in lines:
        out.line(line)
    return {
        "folders": {variable: str(path) for variable, path in place.folders().items()},
        "lines": lines,
        "dry_run": dry_run,
    }

"""`umamba doctor`."""

from dataclasses import asdict
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import WorkspaceOption
from umamba_seg.cli.output import Output

_COLOURS = {"ok": "green", "repaired": "yellow", "warning": "yellow", "broken": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", examples=("umamba doctor", "umamba doctor --json > doctor.json"))(doctor)


def doctor(
    out: Output,
    workspace: WorkspaceOption = None,
    warm: Annotated[bool, typer.Option("--warm", help="Compile the CPU kernels now, for all later runs.")] = False,
) -> Payload:
    """Look at the installation and this machine, and say how to mend what is broken."""
    from rich.table import Table
    from rich.text import Text

    from umamba_seg.doctor import doctor as examine

    diagnosis = examine(workspace, warm=warm)
    table = Table("check", "state", "found", "remedy", box=None, pad_edge=False)
    for check in diagnosis.checks:
        state = Text(check.state, style=_COLOURS[check.state])
        table.add_row(Text(check.name), state, Text(check.found), Text(check.remedy))
    out.show(table)
    return {"checks": [asdict(check) for check in diagnosis.checks], "exit_code": 5 if diagnosis.is_broken else 0}

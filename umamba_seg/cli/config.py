"""`umamba config`."""

from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.output import Output
from umamba_seg.errors import unknown


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "config", examples=("umamba config", "umamba config workspace"))(config)


def config(
    out: Output, key: Annotated[str | None, typer.Argument(help="One setting; its value alone is printed.")] = None
) -> Payload:
    """Print each setting and where its value comes from."""
    from rich.table import Table

    from umamba_seg.workspace import effective_settings

    found = {setting.name: setting for setting in effective_settings()}
    if key is not None:
        if key not in found:
            raise unknown("setting", key, found)
        found = {key: found[key]}
        out.line(found[key].value)
    else:
        table = Table("setting", "value", "from", box=None, pad_edge=False)
        for setting in found.values():
            table.add_row(setting.name, setting.value, setting.source)
        out.show(table)
    return {"settings": {name: {"value": setting.value, "source": setting.source} for name, setting in found.items()}}

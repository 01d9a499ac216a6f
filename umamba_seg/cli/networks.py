"""`umamba networks`."""

from dataclasses import asdict
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "networks", examples=("umamba networks", "umamba networks umamba_enc"))(networks)


def networks(
    out: Output,
    name: Annotated[str | None, typer.Argument(help="One network, with all that is known of it.")] = None,
    dims: Annotated[int | None, typer.Option(help="Only networks for 2 or 3 axes.", min=2, max=3)] = None,
) -> Payload:
    """List the networks that `umamba plan --network` knows, and the mixers for their slots."""
    from rich.table import Table

    from umamba_seg.mixers.registry import MIXERS
    from umamba_seg.networks.registry import NETWORKS, find

    records = [find(name)] if name else [record for record in NETWORKS.values() if dims is None or dims in record.dims]
    table = Table(box=None, pad_edge=False)
    if name:
        for key, value in asdict(records[0]).items():
            table.add_row(key.replace("_", " "), _spoken(value))
    else:
        for heading in ("network", "title", "axes", "a patch must have", "weights that load", "paper"):
            table.add_column(heading)
        for record in records:
            axes = " ".join(f"{dim}D" for dim in record.dims)
            table.add_row(record.name, record.title, axes, record.patch_rule, record.weights, record.paper)
    out.show(table)
    out.remark(f"mixers: {', '.join(MIXERS)}; `none` gives the no-Mamba twin of any network")
    return {"networks": [asdict(record) for record in records], "mixers": list(MIXERS)}


def _spoken(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""`umamba networks`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import lengths, numbers
from umamba_seg.cli.output import Output
from umamba_seg.errors import UsageError

if TYPE_CHECKING:
    from umamba_seg.networks.registry import NetworkRecord

_REACH = "Reach of a mixer"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba networks",
        "umamba networks umamba_enc",
        "umamba networks --reach axes --spacing 2.5,0.8,0.8 --plot axes.png",
    )
    command(app, "networks", examples=examples)(networks)


def networks(
    out: Output,
    name: Annotated[str | None, typer.Argument(help="One network, with all that is known of it.")] = None,
    dims: Annotated[int | None, typer.Option(help="Only networks for 2 or 3 axes.", min=2, max=3)] = None,
    reach: Annotated[
        str | None,
        typer.Option(help="How far this mixer sees before training, in mm per direction.", rich_help_panel=_REACH),
    ] = None,
    size: Annotated[str, typer.Option(help="Voxels of the map Z,Y,X, or Y,X.", rich_help_panel=_REACH)] = "24,40,40",
    spacing: Annotated[
        str | None, typer.Option(help="Edges of its voxels in mm; 1 unless given.", rich_help_panel=_REACH)
    ] = None,
    channels: Annotated[int, typer.Option(help="Channels of the map.", min=1, rich_help_panel=_REACH)] = 32,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the response into this image file.", rich_help_panel=_REACH)
    ] = None,
) -> Payload:
    """List the networks that `umamba plan --network` knows, and the mixers for their slots."""
    if reach is not None:
        return _reach(out, reach, size, spacing, channels, plot)
    if plot is not None:
        raise UsageError("--plot draws the reach of a mixer", where="--plot", how=["add --reach MIXER"], code="usage")
    from rich.table import Table

    from umamba_seg.mixers.registry import MIXERS
    from umamba_seg.networks.registry import NETWORKS, find
    from umamba_seg.networks.size import parameters_of

    records = [find(name)] if name else [record for record in NETWORKS.values() if dims is None or dims in record.dims]
    sizes = {record.name: {f"{n}d": parameters_of(record, n) for n in record.dims} for record in records}
    table = Table(box=None, pad_edge=False)
    if name:
        for heading, text in _about(records[0], sizes[name]).items():
            table.add_row(heading, text)
    else:
        headings = ("network", "title", "M parameters", "deep supervision", "a patch must have", "weights that load")
        for heading in (*headings, "paper"):
            table.add_column(heading)
        for record in records:
            table.add_row(
                record.name,
                record.title,
                " ".join(f"{axes.upper()} {count / 1e6:.1f}" for axes, count in sizes[record.name].items()),
                _spoken(record.deep_supervision),
                record.patch_rule,
                record.weights,
                record.paper,
            )
    out.show(table)
    out.remark(
        "parameters are those for a plan of 128×128×128 or 512×512, one channel and two classes; "
        f"mixers: {', '.join(MIXERS)}; `none` gives the no-Mamba twin of any network"
    )
    told = [{**asdict(record), "parameters": sizes[record.name]} for record in records]
    return {"networks": told, "mixers": list(MIXERS)}


def _reach(out: Output, name: str, size: str, spacing: str | None, channels: int, plot: Path | None) -> Payload:
    import torch
    from rich.table import Table

    from umamba_seg.mixers import create
    from umamba_seg.mixers.place import Place
    from umamba_seg.mixers.reach import CLEAR, FAINT, measure

    extents = numbers(size, "--size") or []
    edges = tuple(lengths(spacing, "--spacing") or [1.0] * len(extents))
    torch.manual_seed(0)
    mixer = create(name, channels, spatial_dims=len(extents), place=Place(spacing=edges))
    if mixer is None:
        how = ["`umamba networks` names the mixers"]
        raise UsageError(f"mixer {name!r} is no layer and sees nothing", where="--reach", how=how, code="no-mixer")
    found = measure(mixer, channels, extents, spacing=edges)
    table = Table("direction", "1 % at, mm", "0.1 % at, mm", "beyond a moved row", box=None, pad_edge=False)
    for direction, beyond in found.blocks.items():
        after = beyond[min(15, len(beyond) - 1)] if beyond else 0.0
        table.add_row(
            direction, f"{found.mm(direction, CLEAR):.3g}", f"{found.mm(direction, FAINT):.3g}", f"{100 * after:.2g} %"
        )
    out.show(table)
    if found.wrap is not None:
        out.remark(f"the last voxel of a line moves the first of the next line by {100 * found.wrap:.2g} %")
    out.remark(
        "at initial values; a row of up to 32 voxels is moved, and read 16 voxels beyond its end, or at the edge"
    )
    if plot is not None:
        from umamba_seg.mixers.reach_plot import plot as draw

        draw(found, f"{name}, {channels} channels, at initial values", plot)
        out.line(str(plot))
    return {
        "mixer": name,
        "spacing": list(edges),
        "size": extents,
        "mm": {
            direction: {"clear": found.mm(direction, CLEAR), "faint": found.mm(direction, FAINT)}
            for direction in found.responses
        },
        "responses": dict(found.responses),
        "blocks": dict(found.blocks),
        "wrap": found.wrap,
        "plot": str(plot) if plot is not None else None,
    }


def _about(record: "NetworkRecord", sizes: Mapping[str, int]) -> dict[str, str]:
    about = {
        "name": record.name,
        "title": record.title,
        "paper": record.paper,
        "axes": " or ".join(map(str, record.dims)),
        "parameters": ", ".join(f"{axes.upper()} {count:,}" for axes, count in sizes.items()),
        "mixer of the paper": record.mixer,
        "a patch must have": record.patch_rule,
        "deep supervision": _spoken(record.deep_supervision),
        "weights that load": record.weights,
        "in plans": record.class_path,
    }
    if record.fixed:
        about["with"] = ", ".join(f"{key}={value}" for key, value in record.fixed.items())
    return {**about, "next": f"umamba plan DATASET --network {record.name}"}


def _spoken(value: bool) -> str:
    return "yes" if value else "no"

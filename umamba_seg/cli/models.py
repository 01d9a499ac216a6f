"""`umamba models list`, `info`, `install`, `remove` and `verify`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DryRunOption
from umamba_seg.cli.output import Output
from umamba_seg.errors import ModelError, UsageError

if TYPE_CHECKING:
    from umamba_seg.inference.models.find import Description

app = typer.Typer(help="Trained models by name: what predict, info and verify find them by.", no_args_is_help=True)

_SHOWN = 12

StoreOption = Annotated[
    Path | None,
    typer.Option("--models", help="The model store; by default as the setting says.", rich_help_panel="Machine"),
]
NameArgument = Annotated[str, typer.Argument(help="As `umamba models list` shows it.", metavar="NAME")]


def list_models(out: Output, models: StoreOption = None) -> Payload:
    """List the models of the store."""
    from rich.markup import escape
    from rich.table import Table

    from umamba_seg.inference.models.store import installed, store_folder

    home, found = store_folder(models), installed(models)
    table = Table("model", "data set", "configuration", "folds", "trainer", "installed", box=None, pad_edge=False)
    for model in found:
        cells = (model.name, model.dataset, model.configuration, " ".join(model.folds), model.trainer, model.installed)
        table.add_row(*map(escape, cells))
    if found:
        out.show(table)
    else:
        out.remark(f"no model is installed in {home}")
    return {"store": str(home), "models": [asdict(model) for model in found]}


def info(
    out: Output,
    model: Annotated[str, typer.Argument(help="A name in the store, a results folder or a zip.", metavar="MODEL")],
    models: StoreOption = None,
) -> Payload:
    """Show what a model segments, what images it wants, and where it comes from."""
    from rich.markup import escape
    from rich.table import Table

    from umamba_seg.inference.models.find import describe

    found = describe(model, store=models)
    table = Table(box=None, pad_edge=False, show_header=False)
    for key, value in _rows(found):
        if value:
            table.add_row(key, escape(value))
    out.show(table)
    return {
        "model": {**asdict(found.record), **{key: value for key, value in asdict(found).items() if key != "record"}}
    }


def _rows(found: "Description") -> list[tuple[str, str]]:
    from umamba_seg.inference.models.archives import spoken_bytes

    record = found.record
    noted = dict(record.provenance)
    versions = [
        ("umamba", noted.pop("version", None)),
        *((name, noted.pop(name, None)) for name in ("nnunetv2", "torch")),
    ]
    return [
        ("model", record.name),
        ("data set", record.dataset),
        ("channels", ", ".join(found.channels)),
        ("labels", _labels(found)),
        ("trainer", record.trainer),
        ("plans", record.plans),
        ("configuration", record.configuration),
        ("folds", ", ".join(record.folds)),
        ("network", found.network),
        ("patch", "×".join(map(str, found.patch))),
        ("spacing", f"{'×'.join(f'{edge:.3g}' for edge in found.spacing)} mm" if found.spacing else ""),
        ("made with", ", ".join(f"{name} {version}" for name, version in versions if version)),
        ("noted", ", ".join(f"{key} {value}" for key, value in noted.items() if value and key != "plans_sha256")),
        ("source", record.source),
        ("installed", record.installed),
        ("left out", ", ".join(record.left_out)),
        ("size", spoken_bytes(found.size)),
    ]


def _labels(found: "Description") -> str:
    names = [f"{name} {value}" for name, value in found.labels.items()]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def install(
    out: Output,
    source: Annotated[
        Path, typer.Argument(help="A results folder, or a zip of nnUNetv2_export_model_to_zip.", metavar="SOURCE")
    ],
    name: Annotated[
        str | None,
        typer.Option(help="By default data set, trainer, plans and configuration.", rich_help_panel="Output"),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Take files that run code when they are read.", rich_help_panel="Input"),
    ] = False,
    models: StoreOption = None,
    dry_run: DryRunOption = False,
) -> Payload:
    """Copy a trained model into the store; of a zip with several models all of them."""
    from umamba_seg.inference.models import store
    from umamba_seg.inference.models.archives import spoken_bytes

    if dry_run:
        offers = store.offers(source, name, store=models)
        for offer in offers:
            out.line(offer.name)
        size = sum(offer.size for offer in offers)
        out.remark(f"{spoken_bytes(size)} would go to {store.store_folder(models)}; checkpoints are not read yet")
        return {"models": [{"name": offer.name} for offer in offers], "bytes": size, "dry_run": True}
    with out.chatter():
        found = store.install(source, name, store=models, is_trusted=trust, report=out.progress)
    for model in found:
        out.line(model.name)
        for file in model.left_out:
            out.warn(f"{model.name}: {file} was left out, since reading it runs code from it; --trust takes it in")
    out.remark(f"next:  umamba predict {found[0].name} -i IMAGES -o OUTPUT")
    return {"models": [asdict(model) for model in found], "dry_run": False}


def remove(
    out: Output,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.", rich_help_panel="Output")] = False,
    models: StoreOption = None,
    dry_run: DryRunOption = False,
) -> Payload:
    """Delete a model of the store; the zip or folder it came from stays."""
    from umamba_seg.inference.models import store

    folder = store.folder_of(name, store=models)
    if not dry_run and not yes and not _agrees(folder):
        out.remark("nothing was removed")
        return {"name": name, "removed": False, "dry_run": False}
    if not dry_run:
        store.remove(name, store=models)
    out.line(f"{folder}: {'would be' if dry_run else 'is'} removed")
    return {"name": name, "removed": not dry_run, "dry_run": dry_run}


def _agrees(folder: Path) -> bool:
    """Ask, where somebody can answer."""
    if not sys.stdin.isatty():
        how = ["add --yes", "or --dry-run to see what would go"]
        raise UsageError("a model is removed only when that is confirmed", where=str(folder), how=how, code="confirm")
    return typer.confirm(f"remove {folder}?", err=True)


def verify(
    out: Output,
    name: Annotated[
        str | None, typer.Argument(help="As `umamba models list` shows it; all unless given.", metavar="[NAME]")
    ] = None,
    models: StoreOption = None,
) -> Payload:
    """Compare the files of installed models with their hashes when they were installed."""
    from umamba_seg.inference.models import store

    names = [name] if name else [model.name for model in store.installed(models)]
    faults = {each: store.verify(each, store=models) for each in names}
    for each, found in faults.items():
        for file, fault in found.items():
            out.line(f"{each}: {file} {fault}")
        if not found:
            out.line(f"{each}: ok")
    if any(faults.values()):
        out.remark("a model with other files segments otherwise: remove it and install it again from its source")
    return {"models": faults, "exit_code": ModelError.exit_code if any(faults.values()) else 0}


command(app, "list", examples=("umamba models list", "umamba models list --json"))(list_models)
command(app, "info", examples=("umamba models info NAME", "umamba models info model.zip"))(info)
command(app, "install", examples=("umamba models install model.zip", "umamba models install RESULTS --name liver"))(
    install
)
command(app, "remove", examples=("umamba models remove NAME", "umamba models remove NAME --yes"))(remove)
command(app, "verify", examples=("umamba models verify", "umamba models verify NAME"))(verify)

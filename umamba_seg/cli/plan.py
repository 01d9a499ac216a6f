"""`umamba plan`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DatasetArgument,
    DryRunOption,
    OverwriteOption,
    WorkspaceOption,
    introduce_workspace,
    nnunet_at_work,
    numbers,
)
from umamba_seg.cli.output import Output

if TYPE_CHECKING:
    from umamba_seg.planning.plan import PlanResult

_METHOD = "Method"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba plan 4",
        "umamba plan 4 --network umamba_enc --twin --vram 24",
        "umamba plan 4 -c 3d_fullres --patch 40,56,40 --batch 4",
    )
    command(app, "plan", examples=examples)(plan)


def plan(
    out: Output,
    dataset: DatasetArgument,
    network: Annotated[str, typer.Option(help="See `umamba networks`.", rich_help_panel=_METHOD)] = "umamba_bot",
    mixer: Annotated[
        str | None,
        typer.Option(
            help="What fills the network's slots instead of its own; none for no Mamba.", rich_help_panel=_METHOD
        ),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            help="2d, 3d_fullres or 3d_lowres; may be repeated. Default: all planned.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    vram: Annotated[float, typer.Option(help="Memory of the GPU to plan for, in GB.", rich_help_panel=_METHOD)] = 8,
    twin: Annotated[
        bool,
        typer.Option(
            "--twin", help="Also plan the no-Mamba twin: same patch, batch and data.", rich_help_panel=_METHOD
        ),
    ] = False,
    patch: Annotated[
        str | None, typer.Option(help="Patch size Z,Y,X instead of the planned one.", rich_help_panel=_METHOD)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Batch size instead of the planned one.", rich_help_panel=_METHOD)
    ] = None,
    plans_name: Annotated[
        str | None,
        typer.Option(help="Name of the plans. Default: made of network, mixer and memory.", rich_help_panel="Output"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("-j", help="Cases worked on at once. Default: one per core.", rich_help_panel="Machine"),
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Plan a network for a data set in nnU-Net's way, and preprocess the data. What is there is not made again."""
    place = introduce_workspace(out, workspace)
    with nnunet_at_work(out):
        from umamba_seg.planning.plan import plan as make_plans

        result = make_plans(
            dataset,
            network=network,
            mixer=mixer,
            vram_gb=vram,
            configurations=configuration or (),
            twin=twin,
            patch=numbers(patch, "--patch"),
            batch=batch,
            plans_name=plans_name,
            processes=jobs,
            overwrite=overwrite,
            dry_run=dry_run,
            workspace=workspace,
            report=out.progress,
        )
    _show(out, result, dry_run)
    return {
        "dataset": result.dataset,
        "folder": str(place.preprocessed / result.dataset),
        "steps": result.steps,
        "plans": [asdict(network) for network in result.networks],
    }


def _show(out: Output, result: "PlanResult", dry_run: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in (
        "plans",
        "configuration",
        "patch",
        "batch",
        "spacing mm",
        "stages",
        "parameters",
        "GPU GB (estimated)",
        "why",
    ):
        table.add_column(
            heading, justify="right" if heading in ("batch", "stages", "parameters", "GPU GB (estimated)") else "left"
        )
    for planned in result.networks:
        for entry in planned.configurations:
            table.add_row(
                planned.plans_name,
                entry.name,
                "×".join(map(str, entry.patch)),
                str(entry.batch),
                "×".join(f"{size:.3g}" for size in entry.spacing),
                str(entry.stages),
                f"{entry.parameters / 1e6:.1f} M",
                f"{entry.memory_gb:.1f}",
                entry.why,
            )
    out.show(table)
    out.remark("steps: " + ", ".join(f"{step} {state}" for step, state in result.steps.items()))
    if dry_run:
        out.remark("dry run: nothing was written")
        return
    first = result.networks[0]
    name = next(
        (entry.name for entry in first.configurations if entry.name == "3d_fullres"), first.configurations[0].name
    )
    out.remark("next:")
    for planned in result.networks:
        out.remark(f"  umamba train {int(result.dataset[7:10])} {name} 0 -p {planned.plans_name}")

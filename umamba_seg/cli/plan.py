"""`umamba plan`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DeviceOption,
    DryRunOption,
    JobsOption,
    OverwriteOption,
    WorkspaceOption,
    introduce_workspace,
    nnunet_at_work,
    numbers,
)
from umamba_seg.cli.output import Output
from umamba_seg.cli.preprocess import show_estimates
from umamba_seg.errors import UsageError

if TYPE_CHECKING:
    from umamba_seg.planning.describe import Measured, PlannedConfiguration
    from umamba_seg.planning.plan import PlanResult

_METHOD = "Method"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba plan 4",
        "umamba plan 4 --network umamba_enc --twin --vram 24",
        "umamba plan 4 --network resenc_l",
        "umamba plan 4 --network umamba_enc --from nnUNetResEncUNetLPlans --probe",
        "umamba plan 4 --diff umambaEnc8GPlans nnUNetResEncUNetMPlans",
    )
    command(app, "plan", examples=examples)(plan)


def plan(
    out: Output,
    dataset: Annotated[
        str | None, typer.Argument(help="Id, name or folder of the data set.", metavar="DATASET", show_default=False)
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="See `umamba networks`; or nnunet, resenc_m, resenc_l, resenc_xl: nnU-Net's own, to compare with.",
            rich_help_panel=_METHOD,
        ),
    ] = "umamba_bot",
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
            help="2d, 3d_fullres, 3d_lowres or 3d_cascade_fullres; may be repeated. Default: all planned.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    vram: Annotated[
        float | None,
        typer.Option(
            help="Memory of the GPU to plan for, in GB: 8, 24 and 40 are those of ResEnc M, L and XL. "
            "Default: 8, or the preset's.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Plans, by name or file, whose network is replaced; patch, batch and data stay.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    twin: Annotated[
        bool,
        typer.Option(
            "--twin",
            help="Also plan the no-Mamba twin and the parameter-matched one: same patch, batch and data.",
            rich_help_panel=_METHOD,
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
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Only say what differs between two plans, by name or file.", metavar="A B", rich_help_panel="Output"
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Measure memory and epoch time in 20 training steps on this device.",
            rich_help_panel="Machine",
        ),
    ] = False,
    device: DeviceOption = None,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Plan a network for a data set in nnU-Net's way, and preprocess the data. What is there is not made again."""
    if diff is not None:
        return _diff(out, dataset, *diff, workspace)
    if dataset is None:
        raise UsageError("which data set?", where="DATASET", how=["umamba plan 4"], code="usage")
    place = introduce_workspace(out, workspace)
    with nnunet_at_work(out):
        from umamba_seg.planning.plan import plan as make_plans

        result = make_plans(
            dataset,
            network=network,
            mixer=mixer,
            vram_gb=vram,
            configurations=configuration or (),
            based_on=source,
            twin=twin,
            patch=numbers(patch, "--patch"),
            batch=batch,
            plans_name=plans_name,
            processes=jobs,
            probe=probe,
            device=device,
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
        "data": [asdict(entry) for entry in result.data],
        "remarks": list(result.remarks),
    }


def _show(out: Output, result: "PlanResult", dry_run: bool) -> None:
    from rich.table import Table

    entries = [(network, entry) for network in result.networks for entry in network.configurations]
    is_measured = any(entry.measured for _, entry in entries)
    table = Table(box=None, pad_edge=False)
    for heading in ("plans", "configuration", "patch", "batch", "spacing mm", "stages", "parameters"):
        table.add_column(heading, justify="right" if heading in ("batch", "stages", "parameters") else "left")
    table.add_column("GB estimated", justify="right")
    for heading in ("GB measured", "epoch") if is_measured else ():
        table.add_column(heading, justify="right")
    table.add_column("why")
    for network, entry in entries:
        measured = _measured(entry.measured) if is_measured else ()
        table.add_row(network.plans_name, *_cells(entry), *measured, entry.why)
    out.show(table)
    if dry_run:
        show_estimates(out, result.data)
    for remark in result.remarks:
        out.warn(remark)
    if is_measured:
        out.remark("epoch: 250 training steps with random images; reading and augmenting data come on top")
    done = {"fingerprint": result.steps["fingerprint"], **{entry.folder.name: entry for entry in result.data}}
    out.remark(", ".join(f"{step}: {state}" for step, state in done.items()))
    if dry_run:
        out.remark("dry run: nothing was written")
        return
    first = [entry.name for entry in result.networks[0].configurations]
    name = "3d_fullres" if "3d_fullres" in first else first[0]
    out.remark("next:")
    for planned in result.networks:
        out.remark(f"  umamba train {int(result.dataset[7:10])} {name} 0 -p {planned.plans_name}")


def _cells(entry: "PlannedConfiguration") -> tuple[str, ...]:
    return (
        entry.name,
        "×".join(map(str, entry.patch)),
        str(entry.batch),
        "×".join(f"{size:.3g}" for size in entry.spacing),
        str(entry.stages),
        f"{entry.parameters / 1e6:.1f} M",
        f"{entry.memory_gb:.2g}",
    )


def _measured(measured: "Measured | None") -> tuple[str, str]:
    if measured is None:
        return "", ""
    return f"{measured.memory_gb:.2g} ({measured.device})", f"{measured.epoch_seconds:.3g} s"


def _diff(out: Output, dataset: str | None, first: str, second: str, workspace: Path | None) -> Payload:
    from umamba_seg.planning.diff import differences, is_controlled
    from umamba_seg.planning.store import read_plans
    from umamba_seg.workspace import find_dataset, locate

    found = None if dataset is None else find_dataset(dataset, locate(workspace))
    with nnunet_at_work(out):
        differing = differences(*(read_plans(text, found, where="--diff") for text in (first, second)))
    for difference in differing:
        out.line(str(difference))
    out.remark(_verdict(differing, is_controlled(differing)))
    return {
        "first": first,
        "second": second,
        "differences": [asdict(difference) for difference in differing],
        "controlled": is_controlled(differing),
    }


def _verdict(differing: Sequence[object], controlled: bool) -> str:
    if not differing:
        return "they say the same"
    if controlled:
        return "only the networks differ: patch, batch, spacing and data are the same"
    return "more than the networks differs: results of the two do not compare the networks alone"

"""`umamba preprocess`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DatasetArgument,
    DryRunOption,
    JobsOption,
    OverwriteOption,
    WorkspaceOption,
    introduce_workspace,
    nnunet_at_work,
)
from umamba_seg.cli.output import Output

if TYPE_CHECKING:
    from umamba_seg.planning.preprocess import Preprocessed


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("umamba preprocess 4 -p umambaBot8GPlans", "umamba preprocess 4 -p nnUNetPlans -c 3d_fullres -j 4")
    command(app, "preprocess", examples=examples)(preprocess)


def preprocess(
    out: Output,
    dataset: DatasetArgument,
    plans: Annotated[str, typer.Option("-p", help="Plans, by name or file.", rich_help_panel="Method")],
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            help="2d, 3d_fullres …; may be repeated. Default: all planned.",
            rich_help_panel="Method",
        ),
    ] = None,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Preprocess the cases that are missing. What is up to date stays; --overwrite makes all of it anew."""
    introduce_workspace(out, workspace)
    with nnunet_at_work(out):
        from umamba_seg.planning.preprocess import preprocess as run

        result = run(
            dataset,
            plans=plans,
            configurations=configuration or (),
            processes=jobs,
            overwrite=overwrite,
            dry_run=dry_run,
            workspace=workspace,
            report=out.progress,
        )
    for entry in result.configurations:
        out.line(f"{entry.folder}: {entry}")
        for remark in (*entry.remarks, *entry.estimate.warnings()):
            out.warn(f"{entry.folder.name}: {remark}")
    if dry_run:
        show_estimates(out, result.configurations)
    return {
        "dataset": result.dataset,
        "plans_name": result.plans_name,
        "data": [asdict(entry) for entry in result.configurations],
    }


def show_estimates(out: Output, data: "Sequence[Preprocessed]") -> None:
    """What preprocessing would take, for each folder that lacks something."""
    for entry in data:
        if entry.estimate.cases:
            facts = ", ".join(f"{name} {value}" for name, value in entry.estimate.facts().items())
            out.remark(f"{entry.folder.name}: {entry.estimate.cases} cases, {facts}")

"""`umamba select`."""

from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DatasetArgument, JobsOption, WorkspaceOption, introduce_workspace, nnunet_at_work
from umamba_seg.cli.output import Output

if TYPE_CHECKING:
    from umamba_seg.nnunet.select import Selection

_METHOD = "Method"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba select 4",
        "umamba select 4 -p umambaBot8GPlans -p umambaBotNoMamba8GPlans -c 3d_fullres -f 0 -f 1",
        "umamba select 4 -p umambaBot8GPlans --ensemble",
    )
    command(app, "select", examples=examples)(select)


def select(
    out: Output,
    dataset: DatasetArgument,
    plans: Annotated[
        list[str] | None,
        typer.Option("-p", help="Plans to compare; may be repeated. Default: all trained.", rich_help_panel=_METHOD),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option("-c", help="Configurations; may be repeated. Default: all trained.", rich_help_panel=_METHOD),
    ] = None,
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            "-tr", help="Trainers as in the results folders; may be repeated. Default: all.", rich_help_panel=_METHOD
        ),
    ] = None,
    fold: Annotated[
        list[int] | None,
        typer.Option("-f", help="Folds to compare on; may be repeated. Default: all.", rich_help_panel=_METHOD),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Also try each two together; trained with --npz.", rich_help_panel=_METHOD),
    ] = False,
    jobs: JobsOption = None,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Find the best of a data set's trained models by cross-validation, its postprocessing, and how to predict."""
    introduce_workspace(out, workspace)
    with nnunet_at_work(out):
        from umamba_seg.nnunet.select import select as run

        result = run(
            dataset,
            plans=plans or (),
            configurations=configuration or (),
            trainers=trainer or (),
            folds=fold or (),
            ensemble=ensemble,
            processes=jobs,
            workspace=workspace,
        )
    _show(out, result)
    return {
        "dataset": result.dataset,
        "folds": list(result.folds),
        "dice": dict(result.dice),
        "best": {
            "models": [str(model) for model in result.best],
            "is_ensemble": len(result.best) > 1,
            "dice": result.dice_before,
            "dice_postprocessed": result.dice_after,
            "postprocessing": list(result.steps),
            "postprocessing_file": str(result.postprocessing),
        },
        "commands": list(result.commands),
        "instructions": str(result.instructions),
    }


def _show(out: Output, result: "Selection") -> None:
    from rich.table import Table

    table = Table("model", "mean Dice", box=None, pad_edge=False)
    for name, dice in sorted(result.dice.items(), key=lambda item: -item[1]):
        table.add_row(name.removeprefix("ensemble___").replace("___", " + "), f"{dice:.4f}")
    out.show(table)
    out.line(f"best: {' + '.join(model.name for model in result.best)}")
    gain = f"{result.dice_before:.4f} to {result.dice_after:.4f}"
    out.line(f"postprocessing: {'; '.join(result.steps)} ({gain})" if result.steps else "postprocessing: none helps")
    for line in result.commands:
        out.line(f"  {line}")

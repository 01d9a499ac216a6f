"""`umamba ensemble` and `umamba postprocess`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import JobsOption, OverwriteOption, nnunet_at_work
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add both commands."""
    command(
        app,
        "ensemble",
        examples=(
            "umamba ensemble OUT_1 OUT_2 -o OUT --model MODEL",
            "umamba ensemble OUT_1 OUT_2 OUT_3 -o OUT --model MODEL --save-probabilities",
        ),
    )(ensemble)
    command(
        app,
        "postprocess",
        examples=(
            "umamba postprocess RAW -o OUT --from MODEL/crossval_results_folds_0_1_2_3_4",
            "umamba postprocess RAW -o OUT --from MODEL/crossval_results_folds_0_1_2_3_4/postprocessing.pkl -j 2",
        ),
    )(postprocess)


def ensemble(
    out: Output,
    folders: Annotated[
        list[Path], typer.Argument(help="Predictions of each model, with probabilities.", metavar="FOLDER…")
    ],
    output: Annotated[Path, typer.Option("-o", help="Folder for the label maps.", rich_help_panel="Output")],
    model: Annotated[
        Path | None,
        typer.Option(help="One of the models. Default: the first FOLDER, if it has plans.", rich_help_panel="Input"),
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write the mean as .npz.", rich_help_panel="Output")
    ] = False,
    overwrite: OverwriteOption = False,
    jobs: JobsOption = None,
) -> Payload:
    """Average the probabilities of several models and write label maps."""
    with nnunet_at_work(out):
        from umamba_seg.nnunet.ensemble import ensemble as run

        files = run(
            folders,
            output,
            model=model,
            save_probabilities=save_probabilities,
            processes=jobs,
            overwrite=overwrite,
        )
    return _told(out, files)


def postprocess(
    out: Output,
    predictions: Annotated[Path, typer.Argument(help="Folder of label maps.", metavar="PRED")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the new ones.", rich_help_panel="Output")],
    source: Annotated[
        Path, typer.Option("--from", help="Folder with postprocessing.json and plans.json.", rich_help_panel="Input")
    ],
    overwrite: OverwriteOption = False,
    jobs: JobsOption = None,
) -> Payload:
    """Remove from label maps the pieces that cross-validation has shown to be wrong as a rule."""
    with nnunet_at_work(out):
        from umamba_seg.nnunet.postprocess import postprocess as run

        files = run(predictions, output, source=source, processes=jobs, overwrite=overwrite)
    return _told(out, files)


def _told(out: Output, files: list[Path]) -> Payload:
    for file in files:
        out.line(str(file))
    return {"files": [str(file) for file in files]}

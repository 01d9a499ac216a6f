"""`umamba predict`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DeviceOption, DryRunOption, OverwriteOption, nnunet_at_work
from umamba_seg.cli.output import Output
from umamba_seg.errors import PartlyDoneError


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba predict MODEL -i images -o segmentations",
        "umamba predict MODEL -i patient.nii.gz -o patient_seg.nii.gz -f 0 --no-tta",
    )
    command(app, "predict", examples=examples)(predict)


def predict(
    out: Output,
    model: Annotated[Path, typer.Argument(help="Results folder: …/TRAINER__PLANS__CONFIGURATION.", metavar="MODEL")],
    inputs: Annotated[Path, typer.Option("-i", help="An image or a folder of images.", rich_help_panel="Input")],
    output: Annotated[
        Path,
        typer.Option("-o", help="Folder for the label maps, or the file for a single image.", rich_help_panel="Output"),
    ],
    fold: Annotated[
        list[str] | None,
        typer.Option("-f", help="Folds to average; may be repeated. Default: all found.", rich_help_panel="Method"),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta/--no-tta", help="Average over mirrored images.", rich_help_panel="Method")
    ] = True,
    step: Annotated[
        float, typer.Option(help="Distance of the tiles in parts of a patch.", rich_help_panel="Method")
    ] = 0.5,
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", help="Also write class probabilities as .npz.", rich_help_panel="Output"),
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="I/N: every N-th case from the I-th, to share work.", rich_help_panel="Machine")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Let code in the checkpoint run, as unpickling does.", rich_help_panel="Input"),
    ] = False,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
) -> Payload:
    """Segment images with a trained model."""
    with nnunet_at_work(out):
        from umamba_seg.nnunet.predict import predict as run

        result = run(
            model,
            inputs,
            output,
            folds=fold or (),
            mirror=tta,
            step=step,
            device=device,
            save_probabilities=save_probabilities,
            part=part,
            trust=trust,
            overwrite=overwrite,
            dry_run=dry_run,
            report=out.progress,
        )
    folds = ", ".join(map(str, result.folds))
    where = f"{'would be' if dry_run else 'are'} in {output}"
    reused = f", {result.reused} of them from an earlier run" if result.reused else ""
    out.remark(f"{len(result.files)} label maps {where}{reused} (folds {folds}, {result.device})")
    for file in result.files:
        out.line(str(file))
    for case, reason in result.failed.items():
        out.warn(f"{case}: {reason}")
    if result.failed:
        out.remark(
            f"{len(result.failed)} of {len(result.failed) + len(result.files)} cases failed; predictions.csv lists them"
        )
    return {
        "model": str(result.model),
        "folds": list(result.folds),
        "device": result.device,
        "files": [str(file) for file in result.files],
        "reused": result.reused,
        "failed": dict(result.failed),
        "predict_seconds": round(result.seconds, 1),
        "dry_run": result.is_dry_run,
        "exit_code": PartlyDoneError.exit_code if result.failed else 0,
    }

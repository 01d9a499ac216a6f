"""`umamba predict`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DeviceOption, DryRunOption, OverwriteOption, nnunet_at_work
from umamba_seg.cli.output import Output
from umamba_seg.device import choose_device, emulated
from umamba_seg.errors import PartlyDoneError

INPUT, OUTPUT, METHOD, MACHINE = "Input", "Output", "Method", "Machine"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba predict MODEL -i images -o segmentations",
        "umamba predict MODEL -i patient.nii.gz -o patient_seg.nii.gz -f 0 --no-tta",
        "umamba predict liver -i dicom_folder -o out --statistics --preview",
    )
    command(app, "predict", examples=examples)(predict)


def predict(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(
            help="Results folder …/TRAINER__PLANS__CONFIGURATION, an nnU-Net zip, or a name of `umamba models list`.",
            metavar="MODEL",
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Option(
            "-i", help="Image, folder, JSON list of cases, or DICOM folder; may be repeated.", rich_help_panel=INPUT
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", help="Folder for the label maps, or the file for a single image.", rich_help_panel=OUTPUT),
    ],
    fold: Annotated[
        list[str] | None,
        typer.Option("-f", help="Folds to average; may be repeated. Default: all found.", rich_help_panel=METHOD),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta/--no-tta", help="Average over mirrored images.", rich_help_panel=METHOD)
    ] = True,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="No mirroring, step 0.75, one fold, OpenVINO where it is installed: not what nnU-Net would give.",
            rich_help_panel=METHOD,
        ),
    ] = False,
    step: Annotated[
        float, typer.Option(help="Distance of the tiles in parts of a patch.", rich_help_panel=METHOD)
    ] = 0.5,
    accumulate: Annotated[
        str, typer.Option(help="nnunet: as nnU-Net sums tiles. fp32: more exact, not the same.", rich_help_panel=METHOD)
    ] = "nnunet",
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16; bf16 is not what nnU-Net would give.", rich_help_panel=METHOD)
    ] = "auto",
    previous_stage: Annotated[
        Path | None,
        typer.Option(help="Cascades: label maps or model of the first stage.", rich_help_panel=INPUT),
    ] = None,
    series: Annotated[
        list[str] | None, typer.Option(help="UID of the DICOM series; one for each channel.", rich_help_panel=INPUT)
    ] = None,
    resample_tilt: Annotated[
        bool, typer.Option("--resample-tilt", help="Straighten a tilted DICOM series.", rich_help_panel=INPUT)
    ] = False,
    no_check: Annotated[
        bool,
        typer.Option("--no-check", help="Do not compare the images with the training data.", rich_help_panel=INPUT),
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let code in the checkpoint run, as unpickling does.", rich_help_panel=INPUT)
    ] = False,
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", help="Also write class probabilities as .npz.", rich_help_panel=OUTPUT),
    ] = False,
    statistics: Annotated[
        bool,
        typer.Option("--statistics", help="Also write volumes and more to statistics.csv.", rich_help_panel=OUTPUT),
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also draw each case, in previews/.", rich_help_panel=OUTPUT)
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="I/N: every N-th case from the I-th, to share work.", rich_help_panel=MACHINE)
    ] = None,
    backend: Annotated[str, typer.Option(help="torch or openvino.", rich_help_panel=MACHINE)] = "torch",
    memory: Annotated[
        float | None,
        typer.Option(
            help="GB beside the network's own. Default: half of what is free, at most 4.", rich_help_panel=MACHINE
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Tiles per call.", min=1, rich_help_panel=MACHINE)] = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
) -> Payload:
    """Segment images with a trained model."""
    with nnunet_at_work(out):
        from umamba_seg.inference.predict import predict as run

        if remark := emulated(precision, choose_device(device)):
            out.warn(f"--precision {precision}: {remark}")
        result = run(
            model,
            inputs,
            output,
            folds=fold or (),
            mirror=tta,
            step=step,
            accumulate=accumulate,  # type: ignore[arg-type]  # checked there
            precision=precision,  # type: ignore[arg-type]
            backend=backend,  # type: ignore[arg-type]
            fast=fast,
            device=device,
            memory_gb=memory,
            batch=batch,
            previous_stage=previous_stage,
            save_probabilities=save_probabilities,
            statistics=statistics,
            preview=preview,
            check=not no_check,
            series=series or (),
            resample_tilt=resample_tilt,
            part=part,
            trust=trust,
            overwrite=overwrite,
            dry_run=dry_run,
            report=out.progress,
            tell=out.remark,
        )
    folds = ", ".join(map(str, result.folds))
    maps, are = ("1 label map", "is") if len(result.files) == 1 else (f"{len(result.files)} label maps", "are")
    where = f"{'would be' if dry_run else are} in {output}"
    reused = f", {result.reused} of them from an earlier run" if result.reused else ""
    out.remark(f"{maps} {where}{reused} (folds {folds}, {result.device})")
    for file in result.files:
        out.line(str(file))
    for name, reason in result.failed.items():
        out.warn(f"{name}: {reason}")
    if result.failed:
        of = len(result.failed) + len(result.files)
        out.remark(f"{len(result.failed)} of {of} cases failed; predictions.csv lists them")
    return {
        "model": str(result.model),
        "folds": list(result.folds),
        "device": result.device,
        "files": [str(file) for file in result.files],
        "reused": result.reused,
        "failed": dict(result.failed),
        "remarks": {name: list(remarks) for name, remarks in result.remarks.items()},
        "changed": dict(result.changed),
        "estimate": None if result.estimate is None else asdict(result.estimate),
        "predict_seconds": round(result.seconds, 1),
        "dry_run": result.is_dry_run,
        "exit_code": PartlyDoneError.exit_code if result.failed else 0,
    }

"""`umamba train`."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DatasetArgument,
    DeviceOption,
    DryRunOption,
    WorkspaceOption,
    introduce_workspace,
    nnunet_at_work,
)
from umamba_seg.cli.output import Output
from umamba_seg.device import choose_device, emulated
from umamba_seg.errors import UsageError

_METHOD, _MACHINE = "Method", "Machine"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba train 4 3d_fullres 0 -p umambaBot8GPlans",
        "umamba train 4 3d_fullres all -p umambaBot8GPlans --epochs 50 --iterations 100",
        "umamba train 4 3d_fullres 0 -p umambaEnc8GPlans --gpus 2 --time-limit 23:30",
        "torchrun --nnodes 2 --nproc-per-node 4 -m umamba_seg.cli.main train 4 3d_fullres 0 -p umambaEnc8GPlans",
    )
    command(app, "train", examples=examples)(train)


def train(
    out: Output,
    dataset: DatasetArgument,
    configuration: Annotated[str, typer.Argument(help="2d, 3d_fullres …, as planned.", metavar="CONFIG")],
    fold: Annotated[list[str], typer.Argument(help="0 to 4, several of them, or all.", metavar="FOLD…")],
    plans: Annotated[str, typer.Option("-p", help="Name of the plans.", rich_help_panel=_METHOD)] = "umambaBot8GPlans",
    trainer: Annotated[str, typer.Option("-tr", help="nnU-Net trainer.", rich_help_panel=_METHOD)] = "nnUNetTrainer",
    epochs: Annotated[
        int | None, typer.Option(help="Default: the trainer's own, 1000 as a rule.", rich_help_panel=_METHOD)
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Per epoch. Default: 250.", rich_help_panel=_METHOD)] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16, or auto to measure whether 16 bits pay. Default: nnU-Net's, fp16 on CUDA.",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of all random numbers. Default: a fresh one.", rich_help_panel=_METHOD)
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="Checkpoint to take weights from, but for the heads.", rich_help_panel=_METHOD)
    ] = None,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation/--no-validation",
            help="Predict the fold's validation cases at the end.",
            rich_help_panel=_METHOD,
        ),
    ] = True,
    checkpoint_every: Annotated[int, typer.Option(help="Epochs between checkpoints.", rich_help_panel="Output")] = 10,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Begin anew; checkpoints that are there are set aside.", rich_help_panel="Output"
        ),
    ] = False,
    npz: Annotated[
        bool,
        typer.Option("--npz", help="Keep the validation's probabilities, for ensembling.", rich_help_panel="Output"),
    ] = False,
    gpus: Annotated[
        int, typer.Option(help="GPUs to train on together; with --device cpu, processes.", rich_help_panel=_MACHINE)
    ] = 1,
    compile_network: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Use torch.compile. Default: as nnU-Net.", rich_help_panel=_MACHINE
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(help="Save and stop after H:MM; the same command goes on.", rich_help_panel=_MACHINE),
    ] = None,
    device: DeviceOption = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Train a fold, or go on where the same command stopped. Ctrl-C saves and stops; a second one stops at once."""
    introduce_workspace(out, workspace)
    ends = None if time_limit is None else time.monotonic() + seconds_of(time_limit)
    with nnunet_at_work(out):
        from umamba_seg.nnunet.train import train as run

        if remark := emulated(precision, choose_device(device)):
            out.warn(f"--precision {precision}: {remark}; auto measures")
        results = [
            run(
                dataset,
                configuration,
                one,
                plans=plans,
                trainer=trainer,
                epochs=epochs,
                iterations=iterations,
                precision=precision,
                device=device,
                processes=gpus,
                checkpoint_every=checkpoint_every,
                seconds=ends - time.monotonic() if ends is not None else None,
                seed=seed,
                compiles=compile_network,
                pretrained=pretrained,
                restart=restart,
                validate=validation,
                save_probabilities=npz,
                dry_run=dry_run,
                workspace=workspace,
                report=out.progress,
            )
            for one in fold
        ]
    for result in results:
        if result.is_dry_run:
            start = f"goes on from {result.resumed_from.name}" if result.resumed_from else "begins anew"
            out.line(f"would train on {result.device} into {result.folder}; {start}")
            continue
        begun = (
            "was trained before" if result.was_complete else f"trained {result.epochs} epochs in {result.seconds:.0f} s"
        )
        dice = "" if result.validation_dice is None else f", validation Dice {result.validation_dice:.3f}"
        skipped = f", {result.non_finite} updates skipped: not finite" if result.non_finite else ""
        out.line(f"{result.folder}: {begun}{dice}{skipped}")
        out.remark(f"next:  umamba predict {result.folder.parent} -i IMAGES -o OUT")
    return {
        "dataset": results[0].dataset,
        "runs": [
            {
                "folder": str(result.folder),
                "device": result.device,
                "resumed_from": result.resumed_from and str(result.resumed_from),
                "was_complete": result.was_complete,
                "epochs": result.epochs,
                "seconds": round(result.seconds, 1),
                "pseudo_dice": list(result.pseudo_dice),
                "validation_dice": result.validation_dice,
                "precision": result.precision,
                "seed": result.seed,
                "non_finite": result.non_finite,
                "dry_run": result.is_dry_run,
            }
            for result in results
        ],
    }


def seconds_of(limit: str) -> float:
    """`1:30` is an hour and a half."""
    found = re.fullmatch(r"(\d+):([0-5]\d)", limit)
    if not found or limit in ("0:00", "00:00"):
        raise UsageError(
            f"a time limit is hours:minutes such as 23:30; got {limit!r}", where="--time-limit", code="bad-time"
        )
    return 3600.0 * int(found[1]) + 60.0 * int(found[2])

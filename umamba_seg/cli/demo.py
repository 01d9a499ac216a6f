"""`umamba demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DeviceOption, DryRunOption, nnunet_at_work
from umamba_seg.cli.output import Output

if TYPE_CHECKING:
    from umamba_seg.demo.run import DemoResult

DEFAULT_FOLDER = Path("umamba_demo")
NEXT = (
    "umamba init ~/segmentation              # then put DatasetXXX_Name, in nnU-Net's format, into its nnUNet_raw",
    "umamba plan XXX --twin                  # plans for U-Mamba Bot and its no-Mamba twin, and preprocessed data",
    "umamba train XXX 3d_fullres 0 -p umambaBot8GPlans      # the same command resumes; then  umamba predict",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", examples=("umamba demo", "umamba demo my_demo --keep"))(demo)


def demo(
    out: Output,
    folder: Annotated[
        Path, typer.Argument(help="Where everything goes.", metavar="[DIR]", show_default=True)
    ] = DEFAULT_FOLDER,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep phantoms and trained models too.", rich_help_panel="Output")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Seconds instead of minutes; the networks learn nothing.", rich_help_panel="Method"
        ),
    ] = False,
    device: DeviceOption = "cpu",
    dry_run: DryRunOption = False,
) -> Payload:
    """Train a U-Mamba and its no-Mamba twin on made-up scans, segment unseen ones and compare, in minutes."""
    from umamba_seg.demo.run import clear_workspace, recipe_in_words, summary
    from umamba_seg.demo.run import demo as run

    if dry_run:
        out.line(f"would use {folder.resolve()}: {recipe_in_words(quick)}")
        return {"folder": str(folder), "dry_run": True}
    out.remark(recipe_in_words(quick))
    with nnunet_at_work(out):
        result = run(folder, quick=quick, device=device or "cpu", report=out.progress)
        if not keep:
            clear_workspace(result)
    _show(out, result, keep)
    return {
        **summary(result.scores),
        "folder": str(result.folder),
        "picture": str(result.picture),
        "workspace": str(result.workspace) if keep else None,
        "total_seconds": round(result.seconds, 1),
    }


def _show(out: Output, result: "DemoResult", keep: bool) -> None:
    from rich.table import Table

    from umamba_seg.datasets.phantoms import ORGANS

    table = Table(box=None, pad_edge=False)
    labels = list(result.scores[0].dice)
    for heading in ("Dice on unseen phantoms", "mean of organs", *labels, "seconds"):
        table.add_column(heading, justify="left" if heading.startswith("Dice") else "right")
    for score in result.scores:
        dice = (f"{score.dice[label]:.3f}" for label in labels)
        table.add_row(score.name, f"{score.mean_dice:.3f}", *dice, f"{score.seconds:.0f}")
    out.show(table)
    others = ", ".join(label for label in labels if label not in ORGANS)
    out.remark(f"{others}: thin and small, hard on purpose. One short run each: a difference here means nothing.")
    out.remark(f"done in {result.seconds:.0f} s")
    out.remark(f"picture        {result.picture}")
    out.remark(f"label maps     {result.folder / 'segmentations'}")
    if keep:
        out.remark(f"data, models   {result.workspace}")
        out.remark(f"try            umamba predict {result.scores[0].model} -i IMAGE -o OUT")
    else:
        out.remark("phantoms and models are gone; --keep keeps them")
    out.remark("next, with your own data:")
    for line in NEXT:
        out.remark(f"  {line}")

"""`umamba import-weights`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import OverwriteOption, nnunet_at_work
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba import-weights checkpoint_UU-Mamba.pth -o uumamba",
        "umamba import-weights segmamba.pt -o segmamba --recipe segmamba-brats2023",
        "umamba import-weights lightm.pt -o lightm --plans plans.json --dataset-json dataset.json -c 3d_fullres",
    )
    command(app, "import-weights", examples=examples)(import_weights)


def import_weights(
    out: Output,
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint or a file of weights.", metavar="CHECKPOINT")],
    output: Annotated[Path, typer.Option("-o", help="The model folder to make.", rich_help_panel="Output")],
    plans: Annotated[
        Path | None, typer.Option(help="nnU-Net plans, where the file brings none.", rich_help_panel="Input")
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option(help="dataset.json of the training data, where the file brings none.", rich_help_panel="Input"),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", "-c", help="Which of the plans.", rich_help_panel="Input"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="segmamba-brats2023 stands for the plans of that model.", rich_help_panel="Input"),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the file run code while it is read.", rich_help_panel="Input")
    ] = False,
    overwrite: OverwriteOption = False,
) -> Payload:
    """Make a model folder of weights that others have trained: U-Mamba, UU-Mamba, SegMamba, LightM-UNet."""
    with nnunet_at_work(out):
        from umamba_seg.nnunet.import_weights import import_weights as run

        result = run(
            checkpoint,
            output,
            plans=plans,
            dataset_json=dataset_json,
            configuration=configuration,
            recipe=recipe,
            is_trusted=trust,
            overwrite=overwrite,
        )
    out.remark(f"{result.network}, {result.parameters:,} parameters, {result.configuration}, fold {result.fold}")
    out.line(str(result.folder))
    out.remark(f"next:  umamba predict {result.folder} -i IMAGES -o OUTPUT")
    return {
        "folder": str(result.folder),
        "network": result.network,
        "configuration": result.configuration,
        "fold": result.fold,
        "parameters": result.parameters,
        "arch_kwargs": dict(result.arch_kwargs),
    }

"""`umamba statistics`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("umamba statistics segmentations", "umamba statistics seg.nii.gz -i scan.nii.gz --csv volumes.csv")
    command(app, "statistics", examples=examples)(statistics)


def statistics(
    out: Output,
    segmentations: Annotated[list[Path], typer.Argument(help="Label maps, or folders of them.", metavar="SEG…")],
    images: Annotated[
        Path | None, typer.Option("-i", help="The image, or the folder of images, for intensities.")
    ] = None,
    dataset_json: Annotated[Path | None, typer.Option(help="Names of the classes.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table.")] = None,
) -> Payload:
    """Tell volume, place, pieces and intensity of each class in label maps."""
    from rich.table import Table

    from umamba_seg.inference.label_maps import image_of, label_maps
    from umamba_seg.inference.statistics import class_names, write_table
    from umamba_seg.inference.statistics import statistics as measure

    files = [file for path in segmentations for file in label_maps(path)]
    names = class_names(dataset_json) if dataset_json else None
    rows = [
        entry
        for file in files
        for entry in measure(file, image=image_of(file, images) if images else None, names=names)
    ]
    table = Table("case", "class", "ml", "pieces", "largest", "intensity", box=None, pad_edge=False)
    for row in rows:
        grey = "" if row.intensity is None else f"{row.intensity[0]:.4g} ± {row.intensity[1]:.3g}"
        table.add_row(
            row.case, row.name, f"{row.ml:.3g}", str(row.components), f"{100 * row.largest_share:.0f} %", grey
        )
    out.show(table)
    if csv is not None:
        write_table(rows, csv)
    return {"statistics": [asdict(row) for row in rows]}

"""`umamba preview`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import OverwriteOption
from umamba_seg.cli.output import Output
from umamba_seg.errors import UsageError
from umamba_seg.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba preview segmentations -i images -o pictures",
        "umamba preview predictions -i images --reference labelsTs -o pictures --window -160:240",
    )
    command(app, "preview", examples=examples)(preview)


def preview(
    out: Output,
    segmentations: Annotated[list[Path], typer.Argument(help="Label maps, or folders of them.", metavar="SEG…")],
    images: Annotated[Path, typer.Option("-i", help="The image, or the folder of images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for the pictures.")],
    reference: Annotated[Path | None, typer.Option(help="Folder of references, drawn below.")] = None,
    dataset_json: Annotated[Path | None, typer.Option(help="Names of the classes.")] = None,
    window: Annotated[str | None, typer.Option(help="Values that become black and white, LOW:HIGH.")] = None,
    slices: Annotated[int, typer.Option(help="Slices of each case.", min=1)] = 3,
    most: Annotated[int, typer.Option("--max", help="Cases at the most.", min=1)] = 60,
    overwrite: OverwriteOption = False,
) -> Payload:
    """Draw label maps over their images, one PNG per case, in true proportion and with the ends of its axes."""
    from umamba_seg.inference.label_maps import image_of, label_maps
    from umamba_seg.inference.preview import picture as draw
    from umamba_seg.inference.statistics import class_names

    files = [file for path in segmentations for file in label_maps(path)][:most]
    names = class_names(dataset_json) if dataset_json else None
    pictures = []
    for done, file in enumerate(files):
        out.progress(Progress("preview", done, len(files), "cases"))
        picture = output / f"{file.name.split('.')[0]}.png"
        if picture.exists() and not overwrite:
            raise UsageError("a picture of this name is there", where=str(picture), how=["--overwrite"], code="exists")
        draw(
            file,
            image_of(file, images),
            picture,
            reference=None if reference is None else reference / file.name,
            names=names,
            window=_window(window),
            slices=slices,
        )
        pictures.append(picture)
        out.line(str(picture))
    out.progress(Progress("preview", len(files), len(files), "cases"))
    return {"pictures": [str(picture) for picture in pictures]}


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        what = f"a window is LOW:HIGH such as -160:240; got {text!r}"
        raise UsageError(what, where="--window", code="bad-window") from None
    return low, high

"""Reading PNG, BMP and TIFF: colours, whether grey levels were lost, and how far apart voxels are.

nnU-Net reads pictures by what they show, not by what was meant: indices of a palette become the palette's colours, and
transparency becomes a channel. A volume in TIFF has its spacing in `case.json` beside it, or none.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENDINGS = (".png", ".bmp", ".tif", ".tiff")
TIFF = (".tif", ".tiff")
NAMES = {"1": "grey", "L": "grey", "I;16": "grey", "I": "grey", "LA": "grey with alpha", "RGB": "RGB", "RGBA": "RGBA"}
CHANNELS = {"grey": 1, "grey with alpha": 2, "RGB": 3, "RGBA": 4, "palette": 3}
KINDS = {"grey with alpha": "la", "RGB": "rgb", "palette": "rgb", "RGBA": "rgba"}
LOSSY_FORMATS = {"JPEG", "MPO", "JPEG2000", "WEBP"}
LOSSY_TIFF = {6, 7, 33003, 33005, 33007, 34712, 34892, 34933, 50001}  # JPEG in all its forms, WebP


@dataclass(frozen=True, slots=True)
class Picture:
    """What the file says of itself.

    Args:
        shape: x, y and for a volume z.
        colour: A name of `CHANNELS`.
        is_lossy: Whether grey levels were lost when it was stored.
        spacing: x, y, z in mm.
        side_car: Why the spacing of a volume is not known; empty where it is, or where none is needed.
    """

    shape: tuple[int, ...]
    colour: str
    is_lossy: bool = False
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    side_car: str = ""


def is_picture(path: Path) -> bool:
    """Whether a file's name is one of a picture."""
    return path.name.lower().endswith(ENDINGS)


def read(path: Path, with_values: bool = True) -> tuple[Picture, np.ndarray | None]:
    """A picture as nnU-Net reads it, (x, y) or (x, y, z); coloured ones are (y, x, colours)."""
    return _read_tiff(path) if path.name.lower().endswith(TIFF) else _read_flat(path, with_values)


def _read_flat(path: Path, with_values: bool) -> tuple[Picture, np.ndarray | None]:
    from PIL import Image

    with Image.open(path) as opened:
        image: Image.Image = opened
        colour = "palette" if image.mode in ("P", "PA") else NAMES.get(image.mode, image.mode)
        if image.mode == "P" and _is_grey(image.getpalette(), image.getextrema()):
            colour, image = "grey", image.convert("L")
        picture = Picture(image.size, colour, is_lossy=opened.format in LOSSY_FORMATS)
        if not with_values:
            return picture, None
        array = np.asarray(image)
    return picture, array.T if array.ndim == 2 else array


def _is_grey(palette: list[int] | None, used: Any) -> bool:
    low, high = used
    colours = np.array(palette or []).reshape(-1, 3)[int(low) : int(high) + 1]
    return bool((colours == colours[:, :1]).all())


def _read_tiff(path: Path) -> tuple[Picture, np.ndarray]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        samples = int(getattr(page, "samplesperpixel", 1))
        is_lossy = int(getattr(page, "compression", 1)) in LOSSY_TIFF
        array = file.asarray()
    if samples > 1:
        colour = {2: "grey with alpha", 3: "RGB", 4: "RGBA"}.get(samples, f"{samples} samples")
        return Picture(array.shape[1::-1], colour, is_lossy), array
    if array.ndim < 3:
        return Picture(array.T.shape, "grey", is_lossy), array.T
    spacing, fault = side_car_spacing(side_car(path))
    return Picture(array.T.shape, "grey", is_lossy, spacing, fault), array.T


def side_car(path: Path) -> Path:
    """Where the spacing of a TIFF volume is written: `case.json` beside `case_0000.tif` or the label `case.tif`."""
    stem = path.name[: -len(path.suffix)]
    case = stem if path.parent.name.startswith("labels") else re.sub(r"_\d{4}$", "", stem)
    return path.with_name(f"{case}.json")


def side_car_spacing(file: Path) -> tuple[tuple[float, ...], str]:
    """The spacing x, y, z of a side-car, or three times 1 and why it is not known."""
    nothing = (1.0, 1.0, 1.0)
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return nothing, "is missing"
    except (OSError, ValueError):
        return nothing, "cannot be read as JSON"
    if not isinstance(content, dict) or "spacing" not in content:
        return nothing, 'has no key "spacing"'
    found = content["spacing"]
    is_sound = isinstance(found, list) and len(found) == 3 and all(_is_length(x) for x in found)
    return (tuple(float(x) for x in found[::-1]), "") if is_sound else (nothing, f"has the spacing {found}")


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0

"""Pictures of label maps: axial slices of an image with its labels, in true proportion, as one PNG.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; a label has the same colour in every picture.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from umamba_seg.errors import DataError, UsageError
from umamba_seg.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

CT_WINDOW = (-160.0, 240.0)
"""Soft tissue, in Hounsfield units."""

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#F0E442", "#CC79A7", "#0072B2")
OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
LINE_STYLES = ("solid", "dashed", "dotted")  # label 8 has the colour of label 1 and a dashed contour

LONG_EDGE, SHORT_EDGE = 3.4, 0.5  # inches: the longer edge of a slice, and what a very narrow one gets at least
DOTS_PER_INCH = 150


def overlay(
    image: NDArray[Any],
    labels: NDArray[Any] | None,
    spacing: Sequence[float],
    path: str | os.PathLike[str],
    *,
    reference: NDArray[Any] | None = None,
    label_names: Mapping[int, str] | None = None,
    title: str | None = None,
    window: tuple[float, float] | None = None,
    slices: int = 3,
    ends: str | None = None,
) -> Path:
    """Draws axial slices of an image with its labels into one PNG.

    Args:
        image: One channel, (z, y, x) or (y, x).
        labels: Whole numbers in the shape of `image`, 0 where nothing is; None draws the image alone.
        spacing: Millimetres per voxel in the order of the axes; of more values than axes the last ones count.
        path: The PNG to write; an older one is replaced.
        reference: Labels to compare with, drawn in a second row with the same slices.
        label_names: What the legend calls each label; one without a name is called "label 3".
        title: One line above the picture.
        window: Values that become black and white, such as `CT_WINDOW`; by default
            the percentiles 1 and 99.5 of the slices.
        slices: How many slices at most, chosen by `pick_slices`.
        ends: Where x, y and z lead, as letters such as "LPS"; written at the edges. See `axis_ends`.

    Returns:
        The path of the PNG.

    Raises:
        DataError: If image, labels, reference and spacing do not fit each other.
        UsageError: If an option has no meaning.
    """
    from matplotlib import style

    path = Path(path)
    maps = {"": labels} if reference is None else {"prediction": labels, "reference": reference}
    _check_options(path, window, slices)
    _check_arrays(image, spacing, maps)

    volume = _as_volume(image)
    rows = {name: _as_labels(labels, volume.shape) for name, labels in maps.items()}
    shown = pick_slices(np.concatenate(list(rows.values()), axis=1), slices)
    pixel = (float(spacing[-2]), float(spacing[-1]))
    planes = volume[shown].astype(np.float32)
    window = window or _percentiles(planes)
    with style.context("default"):  # nnU-Net's training restyles matplotlib for the whole process
        figure, grid = _page(len(rows), len(shown), np.multiply(volume.shape[1:], pixel), title)
        for line, (name, row) in zip(grid, rows.items(), strict=True):
            line[0].set_ylabel(name)
            for axes, z, plane in zip(line, shown, planes, strict=True):
                _draw_image(axes, plane, pixel, window)
                _draw_labels(axes, row[z], pixel)
                _draw_note(axes, f"slice {z}" if image.ndim == 3 else "")
                _draw_ends(axes, ends or "")
        _draw_scale_bar(grid[0][0])
        _draw_legend(figure, {label for row in rows.values() for label in _classes(row[shown])}, label_names or {})
        _save(figure, path)
    return path


def picture(
    label_map: Path,
    image: Path,
    path: Path,
    *,
    reference: Path | None = None,
    names: Mapping[int, str] | None = None,
    window: tuple[float, float] | None = None,
    slices: int = 3,
) -> Path:
    """The overlay of a label map on disk over its image; see `overlay`."""
    import SimpleITK

    from umamba_seg.inference.statistics import read_image

    grey = read_image(image)
    return overlay(
        SimpleITK.GetArrayFromImage(grey),
        SimpleITK.GetArrayFromImage(read_image(label_map)),
        grey.GetSpacing()[::-1],
        path,
        reference=None if reference is None else SimpleITK.GetArrayFromImage(read_image(reference)),
        label_names=names,
        title=label_map.name.split(".")[0],
        window=window,
        slices=slices,
        ends=axis_ends(grey.GetDirection()),
    )


def pick_slices(labels: NDArray[np.integer], count: int) -> list[int]:
    """The slices that show most of all classes, spread out along z.

    A slice z adds the sum over the classes c of share(c, z) * (1.1 - seen(c)): its voxels of c relative to the fullest
    slice of c, which counts less the more of c the slices picked before have. So small classes count as much as large
    ones. The slice that adds most comes first, then the best one that is far enough away, and so on.

    Args:
        labels: Label map, (z, y, x).
        count: How many slices at most.

    Returns:
        Indices along z in rising order; evenly spread if the map is empty.
    """
    share = _share(labels)
    filled = np.flatnonzero(share.any(axis=1))
    if not filled.size:
        return sorted({int((i + 0.5) * len(labels) / count) for i in range(count)})
    distance = max(1, math.ceil(np.ptp(filled) / (count + 1)))
    picked: list[int] = []
    seen = np.zeros(share.shape[1])
    while len(picked) < count and share.any():
        best = int((share @ (1.1 - seen)).argmax())
        seen = np.maximum(seen, share[best])
        picked.append(best)
        share[max(0, best - distance + 1) : best + distance] = 0
    return sorted(picked)


def _share(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    classes = int(labels.max()) + 1
    voxels = np.stack([np.bincount(plane.ravel(), minlength=classes)[1:] for plane in labels])  # (z, class)
    return voxels / np.maximum(voxels.max(axis=0), 1)


def _check_options(path: Path, window: tuple[float, float] | None, slices: int) -> None:
    if path.suffix.lower() != ".png":
        raise UsageError(f"a preview is written as .png, got {path.name!r}", code="preview-name")
    if window is not None and not window[0] < window[1]:
        raise UsageError(f"window must be a lower and a higher value, got {window}", code="preview-window")
    if slices < 1:
        raise UsageError(f"slices must be at least 1, got {slices}", code="preview-slices")


def _check_arrays(image: NDArray[Any], spacing: Sequence[float], maps: Mapping[str, NDArray[Any] | None]) -> None:
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"a preview needs an image (z, y, x) or (y, x), got shape {image.shape}", code="preview-shape")
    if len(spacing) < image.ndim or not min(spacing) > 0:
        raise DataError(f"spacing must be {image.ndim} positive values, got {tuple(spacing)}", code="preview-spacing")
    for name, labels in maps.items():
        if labels is not None:
            _check_labels(labels, name or "labels", image.shape)


def _check_labels(labels: NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    if labels.shape != shape:
        raise DataError(f"{name} must have the shape of the image, {shape}, got {labels.shape}", code="preview-shape")
    if labels.min() < 0 or not np.array_equal(labels, np.floor(labels)):
        low, high = labels.min(), labels.max()
        raise DataError(f"{name} must be whole numbers from 0, got values from {low} to {high}", code="preview-labels")


def _as_volume(image: NDArray[Any]) -> NDArray[Any]:
    return image.reshape((-1, *image.shape[-2:]))


def _as_labels(labels: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[np.integer]:
    if labels is None:
        return np.zeros(shape, np.uint8)
    return _as_volume(labels).astype(np.min_scalar_type(int(labels.max())))


def _classes(labels: NDArray[np.integer]) -> list[int]:
    return np.unique(labels[labels > 0]).tolist()


def _percentiles(image: NDArray[np.float32]) -> tuple[float, float]:
    values = image[np.isfinite(image)]
    low, high = np.percentile(values, (1, 99.5)).tolist() if values.size else (0.0, 0.0)
    return (low, high) if low < high else (low - 0.5, low + 0.5)  # one value all over is drawn mid-grey


def _page(rows: int, columns: int, size: NDArray[np.float64], title: str | None) -> tuple[Figure, list[list[Axes]]]:
    """A page of panels for slices of `size` mm, (y, x)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    height, width = np.maximum(LONG_EDGE * size / size.max(), SHORT_EDGE)
    figure = Figure((columns * width + 1, rows * height + 1), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _draw_image(axes: Axes, image: NDArray[Any], pixel: tuple[float, float], window: tuple[float, float]) -> None:
    height, width = np.multiply(image.shape, pixel)
    low, high = window
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bicubic", extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_labels(axes: Axes, labels: NDArray[np.integer], pixel: tuple[float, float]) -> None:
    """Fills and outlines every class; the axes are in mm."""
    padded = np.pad(labels, 1)  # contours close at the border of the image
    y, x = (size * (np.arange(n) - 0.5) for size, n in zip(pixel, padded.shape, strict=True))
    for label in _classes(labels):
        colour, line = _style(label)
        inside = (padded == label).astype(np.float32)
        axes.contourf(x, y, inside, levels=[0.5, 1.5], colors=[colour], alpha=0.3)
        axes.contour(x, y, inside, levels=[0.5], colors=[colour], linestyles=[line], linewidths=1.2)
    axes.set(xlim=(0, x[-1] - pixel[1] / 2), ylim=(y[-1] - pixel[0] / 2, 0))


def _style(label: int) -> tuple[str, str]:
    turn, place = divmod(label - 1, len(PALETTE))
    return PALETTE[place], LINE_STYLES[turn % len(LINE_STYLES)]


def _draw_note(axes: Axes, text: str) -> None:
    axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top", fontsize=8, **_white())


def _draw_ends(axes: Axes, ends: str) -> None:
    """The letters of left and right, top and bottom; y grows downwards."""
    if len(ends) < 2:
        return
    x, y = ends[0], ends[1]
    for place, letter in {(0.01, 0.5): OPPOSITE[x], (0.99, 0.5): x, (0.5, 0.99): OPPOSITE[y], (0.5, 0.01): y}.items():
        across = "left" if place[0] < 0.1 else "right" if place[0] > 0.9 else "center"
        along = "bottom" if place[1] < 0.1 else "top" if place[1] > 0.9 else "center"
        axes.text(*place, letter, transform=axes.transAxes, ha=across, va=along, fontsize=9, **_white())


def axis_ends(direction: Sequence[float]) -> str:
    """Where each axis of an image leads, by ITK's direction cosines, row by row: "LPS" for none turned.

    Letters are those of patients: left, right, posterior, anterior, superior, inferior; of an oblique axis the nearest.
    """
    size = math.isqrt(len(direction))
    matrix = np.asarray(direction, float).reshape(size, size)
    found = ""
    for column in matrix.T:
        axis = int(np.abs(column).argmax())
        letter = "LPS"[axis]
        found += letter if column[axis] > 0 else OPPOSITE[letter]
    return found


def _white() -> dict[str, Any]:
    """How notes are drawn: white with a dark rim, to be read on any image."""
    from matplotlib.patheffects import withStroke

    return {"color": "white", "path_effects": [withStroke(linewidth=2, foreground="black")]}


def _draw_scale_bar(axes: Axes) -> None:
    """A bar of a round length, at most a quarter of the panel's width."""
    (_, width), (height, _) = axes.get_xlim(), axes.get_ylim()
    decade = 10.0 ** math.floor(math.log10(width / 4))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= width / 4)
    left, bottom = 0.03 * width, height - 0.03 * width
    axes.plot([left, left + length], [bottom, bottom], linewidth=2, solid_capstyle="butt", **_white())
    axes.text(left, bottom - 0.02 * width, f"{length:g} mm", fontsize=8, va="bottom", **_white())


def _draw_legend(figure: Figure, labels: set[int], names: Mapping[int, str]) -> None:
    if not labels:
        return
    texts = {label: names.get(label, f"label {label}") for label in sorted(labels)}
    handles = [_swatch(*_style(label), text) for label, text in texts.items()]
    widest = max(map(len, texts.values()))
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.08 * widest)))  # inches of a patch and of a letter
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _swatch(colour: str, line: str, text: str) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=(colour, 0.4), edgecolor=colour, linestyle=line, linewidth=1.2, label=text)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})

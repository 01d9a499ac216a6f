"""From image files to the network's grid, in nnU-Net's steps: read, transpose, crop, normalise, resize."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.inference.model_folder import ModelFolder, Weights
from umamba_seg.inference.plans import Configuration
from umamba_seg.inference.resize import resize
from umamba_seg.inference.storage import Storage

ANISOTROPIC = 3.0  # voxels longer than others by more than this are resized slice by slice
OURS = "resample_data_or_seg_to_shape"  # nnU-Net's function that `resize` stands for
Box = tuple[slice, slice, slice]
Resample = Callable[[np.ndarray, Sequence[int], Sequence[float], Sequence[float]], np.ndarray]

_READERS = {
    "SimpleITKIO": "simpleitk_reader_writer",
    "SimpleITKIOWithReorient": "simpleitk_reader_writer",
    "NibabelIO": "nibabel_reader_writer",
    "NibabelIOWithReorient": "nibabel_reader_writer",
    "NaturalImage2DIO": "natural_image_reader_writer",
    "Tiff3DIO": "tif_reader_writer",
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image and the network's grid lie to each other; axes as the network has them.

    Args:
        properties: What the reader needs to write a label map.
        full: Size of the image.
        box: What of it is not empty.
        spacing: Of the image.
        grid: Size of what the network sees.
        grid_spacing: And its spacing.
    """

    properties: dict[str, Any]
    full: tuple[int, int, int]
    box: Box
    spacing: tuple[float, ...]
    grid: tuple[int, int, int]
    grid_spacing: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image on the network's grid, (c, z, y, x) in float32, and where its other arrays will lie."""

    image: np.ndarray
    geometry: Geometry
    storage: Storage


@dataclass(frozen=True, slots=True)
class Resampling:
    """One of the resampling functions of a plan, as far as it is `resize`.

    Args:
        order: In the plane, or everywhere.
        order_apart: Along an axis of long voxels.
        force: Whether that axis is kept apart whatever the spacing; None goes by the spacing.
        threshold: From which ratio of spacings on it is.
        original: nnU-Net's function, where it is another one; else None.
    """

    order: int
    order_apart: int
    force: bool | None
    threshold: float
    original: Resample | None

    @classmethod
    def of(cls, configuration: Configuration, what: str, orders: Sequence[int]) -> "Resampling":
        """Of `data` or `probabilities`; ours for these orders only."""
        name = configuration.configuration[f"resampling_fn_{what}"]
        options = dict(configuration.configuration[f"resampling_fn_{what}_kwargs"])
        order, apart = options.get("order", 3), options.get("order_z", 0)
        known = {"is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"}
        is_ours = (
            name == OURS and order in orders and apart in (0, 1) and not options.get("is_seg") and known >= {*options}
        )
        original = None if is_ours else configuration.resampling_fn(what)
        threshold = options.get("separate_z_anisotropy_threshold", ANISOTROPIC)
        return cls(order, apart, options.get("force_separate_z", False), threshold, original)

    def separate(self, current: Sequence[float], new: Sequence[float]) -> tuple[int, int] | None:
        """The axis of long voxels and the order along it; None where there is none, or several are as long."""
        if self.force is None:
            spacing = next((s for s in (current, new) if max(s) / min(s) > self.threshold), None)
        else:
            spacing = current if self.force else None
        if spacing is None:
            return None
        longest = [axis for axis, value in enumerate(spacing) if max(spacing) / value == 1]
        return (longest[0], self.order_apart) if len(longest) == 1 else None


def reader_of(model: ModelFolder) -> Any:
    """The plan's reader and writer of images."""
    name = model.plans.plans["image_reader_writer"]
    if name in _READERS:  # looking it up imports all of them
        return getattr(import_module(f"nnunetv2.imageio.{_READERS[name]}"), name)()
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    return recursive_find_reader_writer_by_name(name)()


def prepare(
    image: np.ndarray,
    properties: dict[str, Any],
    weights: Weights,
    storage_for: Callable[[Sequence[int], int], Storage],
    *,
    previous: np.ndarray | None = None,
    threads: int = 1,
) -> Prepared:
    """Bring an image onto the network's grid.

    Args:
        image: (c, z, y, x) as the plan's reader gives it; taken over, not copied.
        properties: From the reader; `spacing` along z, y, x.
        weights: Of the model.
        storage_for: Decides where arrays lie for a grid and so many channels.
        previous: For cascades the label map of the stage before, (z, y, x).
        threads: How many may work.
    """
    forward = weights.model.plans.transpose_forward
    image = np.asarray(image, np.float32).transpose(0, *(axis + 1 for axis in forward))
    spacing = [properties["spacing"][axis] for axis in forward]
    full = image.shape[1:]
    needs_mask = previous is not None or any(weights.configuration.use_mask_for_norm)
    box, mask = _crop(image, needs_mask=needs_mask)
    image = image[(slice(None), *box)]
    target = list(weights.configuration.spacing)
    if len(target) < 3:
        target = [spacing[0], *target]
    grid = tuple(round(old / new * size) for old, new, size in zip(spacing, target, image.shape[1:], strict=True))
    image = _normalise(image, mask, weights)
    channels = image.shape[0] + (len(weights.model.labels.foreground_labels) if previous is not None else 0)
    storage = storage_for(grid, channels)
    out = storage.zeros("image", (channels, *grid), np.float32)
    _resample(image, out[: image.shape[0]], spacing, target, weights, threads)
    if previous is not None:
        assert mask is not None
        out[image.shape[0] :] = _one_hot(previous.transpose(forward)[box], mask, grid, spacing, target, weights)
    geometry = Geometry(properties, full, box, tuple(spacing), grid, tuple(target))
    storage.give_way()
    return Prepared(out, geometry, storage)


def _crop(image: np.ndarray, *, needs_mask: bool) -> tuple[Box, np.ndarray | None]:
    """The box of what is not zero in some channel, all of an empty image; and the mask in it with its holes filled."""
    mask = image[0] != 0
    for channel in image[1:]:
        mask |= channel != 0
    box = tuple(_extent(mask, axis) for axis in range(3))
    if not needs_mask:
        return box, None  # type: ignore[return-value]  # filling holes does not change the box
    from scipy.ndimage import binary_fill_holes

    return box, binary_fill_holes(mask)[box]  # type: ignore[return-value]


def _extent(mask: np.ndarray, axis: int) -> slice:
    occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, mask.shape[axis])


def _normalise(image: np.ndarray, mask: np.ndarray | None, weights: Weights) -> np.ndarray:
    """Each channel by its own scheme, in place; in nnU-Net's classes, so that means agree to the bit."""
    outside = None if mask is None else np.where(mask, np.int8(0), np.int8(-1))
    intensities = weights.model.plans.intensities
    configuration = weights.configuration
    for channel, (scheme, masked) in enumerate(
        zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    ):
        normalise = _scheme(scheme)(use_mask_for_norm=masked, intensityproperties=intensities[str(channel)])
        image[channel] = normalise.run(image[channel], outside)
    return image


@lru_cache
def _scheme(name: str) -> Any:
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

    if hasattr(schemes, name):
        return getattr(schemes, name)
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = Path(nnunetv2.__path__[0]) / "preprocessing/normalization"
    found = recursive_find_python_class(str(folder), name, "nnunetv2.preprocessing.normalization")
    if found is None:
        raise ValueError(f"nnU-Net has no normalisation {name!r}")
    return found


def _resample(
    image: np.ndarray,
    out: np.ndarray,
    spacing: Sequence[float],
    target: Sequence[float],
    weights: Weights,
    threads: int,
) -> None:
    way = Resampling.of(weights.configuration, "data", (0, 1, 3))
    if way.original is not None:
        out[:] = way.original(image, out.shape[1:], spacing, target)
        return
    apart = way.separate(spacing, target)
    axis, order = apart or (None, 0)
    resize(image, out.shape[1:], order=way.order, separate_axis=axis, separate_order=order, threads=threads, out=out)


def _one_hot(
    labels: np.ndarray,
    mask: np.ndarray,
    grid: Sequence[int],
    spacing: Sequence[float],
    target: Sequence[float],
    weights: Weights,
) -> np.ndarray:
    """The label map of the stage before, a channel for each class; by nnU-Net's function, whose ties are its own."""
    marked = labels.astype(np.int16)
    marked[(marked == 0) & ~mask] = -1
    resized = weights.configuration.resampling_fn("seg")(marked[None], grid, spacing, target)[0]
    return np.stack([resized == label for label in weights.model.labels.foreground_labels]).astype(np.float32)

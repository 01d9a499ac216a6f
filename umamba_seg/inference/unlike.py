"""In what a case is unlike the data a model was trained on: a network segments anything it is given, and says nothing.

Every measure is compared with what the training data had; the margins are wide, so that ordinary cases raise no remark.
Of a case only a sample is looked at. Axes are z, y, x, as files have them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umamba_seg.inference.model_folder import ModelFolder

MOST_VOXELS = 100_000  # of a channel, that are looked at
SPACING_FACTOR = 3.0  # off the median from which voxels are told
SPACING_LEEWAY = 1.1  # beyond the thinnest and thickest voxels of training that are still like them
EXTENT_FACTOR = 2.0  # beyond the smallest and largest field of view of training
EXTENT_FACTOR_OF_MEDIAN = 4.0  # where the model keeps only the medians: abdomen scans alone differ by twice from theirs
AIR = -200.0  # Hounsfield units; whatever lies below is air or lung, or no tissue at all
NARROW = 0.25  # of the training foreground's range, which a whole image exceeds as a rule

_BY_CHANNEL_NAME = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
_KEEPS_UNITS = {"CTNormalization", "NoNormalization", "RGBTo01Normalization"}  # others make any scale the same


def remarks(image: np.ndarray, spacing: Sequence[float], model: ModelFolder, *, transposed: bool = False) -> list[str]:
    """Say in what a case is unlike the training data, a sentence for each measure; empty for an ordinary case.

    Args:
        image: (c, z, y, x) as read, or a part of it that was cut out; not copied.
        spacing: In mm along z, y, x.
        model: Whose training data to compare with.
        transposed: Whether image and spacing are in the network's order of axes already, not in the files'.
    """
    plans = model.plans.plans
    if transposed:
        back = plans["transpose_backward"]
        image = image.transpose(0, *(axis + 1 for axis in back))
        spacing = [spacing[axis] for axis in back]
    sample, shape, training = _sample(image), image.shape[1:], _Training.of(model)
    return [
        *_on_spacing(spacing, shape, training),
        *_on_extent(_extents(sample, shape, spacing), shape, training),
        *(
            sentence
            for channel in range(min(len(image), len(model.channels)))
            for sentence in _on_channel(image[channel], sample[channel], _Expected.of(model, channel))
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Training:
    """Geometry of the training data along z, y, x; None what the model does not keep.

    Args:
        spacing: Median.
        spacings: Least and greatest.
        shape: Median, in voxels.
        extents: Least and greatest field of view in mm.
    """

    spacing: tuple[float, ...] | None
    spacings: tuple[tuple[float, float], ...] | None
    shape: tuple[float, ...] | None
    extents: tuple[tuple[float, float], ...] | None

    @classmethod
    def of(cls, model: ModelFolder) -> "_Training":
        plans, fingerprint = model.plans.plans, model.fingerprint or {}
        back = plans["transpose_backward"]
        spacings = np.array(fingerprint.get("spacings", ()), float)  # (case, axis), axes as files have them
        shapes = np.array(fingerprint.get("shapes_after_crop", ()), float)
        has_spacings, has_shapes = spacings.size > 0, spacings.size > 0 and spacings.shape == shapes.shape
        return cls(
            _put_back(plans.get("original_median_spacing_after_transp"), back)
            or (tuple(np.median(spacings, axis=0)) if has_spacings else None),
            _ranges(spacings) if has_spacings else None,
            _put_back(plans.get("original_median_shape_after_transp"), back)
            or (tuple(np.median(shapes, axis=0)) if has_shapes else None),
            _ranges(spacings * shapes) if has_shapes else None,
        )


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a model knows of a channel: how it is normalised, and the intensities of the training foreground."""

    name: str
    scheme: str
    foreground: dict[str, float]

    @classmethod
    def of(cls, model: ModelFolder, channel: int) -> "_Expected":
        name = str(model.channels[channel])
        plans = model.plans.plans
        foreground = plans.get("foreground_intensity_properties_per_channel", {}).get(str(channel), {})
        return cls(name, _scheme(plans, channel, name), foreground)

    @property
    def least(self) -> float:
        return self.foreground["min"]

    @property
    def greatest(self) -> float:
        return self.foreground["max"]

    @property
    def bulk(self) -> tuple[float, float]:
        """Without the outermost 0.5 % on both sides."""
        return self.foreground["percentile_00_5"], self.foreground["percentile_99_5"]


def _put_back(values: Sequence[float] | None, back: Sequence[int]) -> tuple[float, ...] | None:
    return tuple(float(values[axis]) for axis in back) if values else None


def _ranges(values: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple(zip(values.min(axis=0).tolist(), values.max(axis=0).tolist(), strict=True))


def _scheme(plans: dict[str, Any], channel: int, name: str) -> str:
    """nnU-Net's normalisation; its configurations have the same."""
    for configuration in plans.get("configurations", {}).values():
        if schemes := configuration.get("normalization_schemes"):
            return str(schemes[channel]) if channel < len(schemes) else ""
    return _BY_CHANNEL_NAME.get(name.casefold(), "ZScoreNormalization")


def _sample(image: np.ndarray) -> np.ndarray:
    """A view of evenly spread voxels of every channel."""
    shape = image.shape[1:]
    steps = [1] * len(shape)
    counts = list(shape)
    while np.prod(counts) > MOST_VOXELS:
        longest = int(np.argmax(counts))  # so that axes of few voxels keep theirs
        steps[longest] += 1
        counts[longest] = -(-shape[longest] // steps[longest])
    return image[(slice(None), *(slice(None, None, step) for step in steps))]


def _extents(sample: np.ndarray, shape: Sequence[int], spacing: Sequence[float]) -> list[float]:
    """Size in mm of what is not zero, as training sizes are measured too; of all where everything is zero."""
    occupied = (sample != 0).any(axis=0)
    extents = []
    for axis, (size, mm) in enumerate(zip(shape, spacing, strict=True)):
        planes = np.flatnonzero(occupied.any(axis=tuple(other for other in range(occupied.ndim) if other != axis)))
        share = (planes[-1] - planes[0] + 1) / occupied.shape[axis] if len(planes) else 1.0
        extents.append(float(share * size * mm))
    return extents


def _on_spacing(spacing: Sequence[float], shape: Sequence[int], training: _Training) -> Iterator[str]:
    if training.spacing is None:
        return
    for axis, (mm, median) in enumerate(zip(spacing, training.spacing, strict=True)):
        if _is_flat(axis, shape, training) or max(mm, median) < SPACING_FACTOR * min(mm, median):
            continue
        among = ""
        if training.spacings is not None:
            least, greatest = training.spacings[axis]
            if least / SPACING_LEEWAY <= mm <= greatest * SPACING_LEEWAY:
                continue
            among = f" ({_between(least, greatest)})"
        yield f"spacing: {mm:.3g} mm along {'zyx'[axis]}; the training median is {median:.3g} mm{among}"


def _on_extent(extents: Sequence[float], shape: Sequence[int], training: _Training) -> Iterator[str]:
    for axis, mm in enumerate(extents):
        if _is_flat(axis, shape, training):
            continue
        if training.extents is not None:
            least, greatest = training.extents[axis]
            factor, had = EXTENT_FACTOR, f"training cases have {_between(least, greatest)} mm"
        elif training.spacing is not None and training.shape is not None:
            least = greatest = training.spacing[axis] * training.shape[axis]
            factor, had = EXTENT_FACTOR_OF_MEDIAN, f"the training median is {least:.3g} mm"
        else:
            return
        if not least / factor <= mm <= greatest * factor:
            yield f"field of view: {mm:.3g} mm along {'zyx'[axis]}; {had}"


def _is_flat(axis: int, shape: Sequence[int], training: _Training) -> bool:
    """Whether case and training are both single slices there; readers make up the distance between such."""
    return shape[axis] == 1 and training.shape is not None and training.shape[axis] == 1


def _on_channel(channel: np.ndarray, sample: np.ndarray, expected: _Expected) -> Iterator[str]:
    """At most one remark: what follows from the first would only repeat it."""
    values = sample[np.isfinite(sample)]
    if not values.size:
        return
    if values.min() == values.max():
        low, high = float(channel.min()), float(channel.max())  # the sample may have missed what there is
        if low == high:
            yield _constant(low, expected)
        return
    if not {"min", "max", "percentile_00_5", "percentile_99_5"} <= expected.foreground.keys():
        return
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    on_units = _on_hounsfield_units if expected.scheme == "CTNormalization" else _on_negative_values
    if sentence := _on_range(low, high, expected) or on_units(low, high, expected):
        yield sentence


def _constant(value: float, expected: _Expected) -> str:
    had = f"; the training foreground has {_between(*expected.bulk)}" if expected.foreground else ""
    return f"channel {expected.name}: every voxel is {value:.4g}{had}"


def _on_range(low: float, high: float, expected: _Expected) -> str | None:
    bottom, top = expected.bulk
    span = expected.greatest - expected.least
    is_narrow = expected.scheme in _KEEPS_UNITS and high - low < NARROW * (top - bottom)
    if is_narrow or low > expected.greatest + span or high < expected.least - span:
        has = f"channel {expected.name}: values of {_between(low, high)}"
        return f"{has}; the training foreground has {_between(bottom, top)}"
    return None


def _on_hounsfield_units(low: float, high: float, expected: _Expected) -> str | None:
    bottom, _ = expected.bulk
    has = f"channel {expected.name}: values of {_between(low, high)}"
    if low >= 0 > expected.least:
        return f"{has}, none below 0; the training foreground goes down to {expected.least:.4g} Hounsfield units"
    if low > AIR > bottom:
        return f"{has}, none below {AIR:.0f}; the training foreground begins at {bottom:.4g}"
    return None


def _on_negative_values(low: float, _: float, expected: _Expected) -> str | None:
    """Magnitudes, such as MR's, are not negative; interpolation makes them so by a little."""
    leeway = 0.05 * (expected.greatest - expected.least)
    if low >= AIR or expected.least < -leeway:
        return None
    return (
        f"channel {expected.name}: values down to {low:.4g}, as CT has them;"
        f" the training foreground begins at {expected.least:.4g}"
    )


def _between(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"

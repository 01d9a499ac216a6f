"""How well one label map agrees with another, for one class or region.

    dice   2 |P ∩ R| / (|P| + |R|)
    nsd    share of both surfaces that lies within a tolerance of the other, by area (Nikolov et al.)
    hd95   the larger of the two directed 95th percentiles of distances between voxel surfaces, in mm (MONAI's)
    assd   the mean distance of both surfaces to the other, in mm

Where neither has a voxel nothing is defined. Where only one has, Dice and NSD are 0, and the distances are the diagonal
of the image.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 3  # voxels around both masks, so that a surface lies inside what is looked at


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one case and one class; NaN where something is not defined.

    Args:
        reference_ml: Volume of the reference. So is `predicted_ml`.
        is_half_empty: Whether only one of the two has a voxel.
    """

    dice: float
    nsd: float
    hd95: float
    assd: float
    reference_ml: float
    predicted_ml: float
    is_half_empty: bool


NAMES = ("dice", "nsd", "hd95", "assd")


def measure(reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], tolerance: float) -> Measures:
    """All measures of two masks.

    Args:
        reference: Bool, of any number of axes.
        predicted: As large.
        spacing: In mm, of the same axes.
        tolerance: Of NSD, in mm.
    """
    ml = math.prod(spacing) / 1000
    sizes = int(np.count_nonzero(reference)), int(np.count_nonzero(predicted))
    volumes = sizes[0] * ml, sizes[1] * ml
    if sizes == (0, 0):
        return Measures(math.nan, math.nan, math.nan, math.nan, *volumes, is_half_empty=False)
    if 0 in sizes:
        diagonal = math.hypot(*(size * step for size, step in zip(reference.shape, spacing, strict=True)))
        return Measures(0.0, 0.0, diagonal, diagonal, *volumes, is_half_empty=True)
    both = int(np.count_nonzero(reference & predicted))
    box = _box(reference | predicted)
    return Measures(
        2 * both / sum(sizes), *_surfaces(reference[box], predicted[box], spacing, tolerance), *volumes,
        is_half_empty=False,
    )  # fmt: skip


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    found = []
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        (where,) = np.nonzero(mask.any(axis=others))
        found.append(slice(max(0, where[0] - MARGIN), where[-1] + 1 + MARGIN))
    return tuple(found)


def _surfaces(
    reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], tolerance: float
) -> tuple[float, float, float]:
    """NSD, HD95 and ASSD of two masks that are not empty."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    padded = [np.pad(mask, MARGIN) for mask in (predicted, reference)]  # a mask at the border has a surface there
    y_pred, y = (torch.from_numpy(mask[None, None].astype(np.uint8)) for mask in padded)
    options = {"include_background": True, "spacing": [float(step) for step in spacing]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nsd = compute_surface_dice(y_pred, y, class_thresholds=[tolerance], use_subvoxels=True, **options)
        hd95 = compute_hausdorff_distance(y_pred, y, percentile=95, **options)
        assd = compute_average_surface_distance(y_pred, y, symmetric=True, **options)
    return float(nsd), float(hd95), float(assd)

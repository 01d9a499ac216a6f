"""Measures against plain definitions, and at the empty edges."""

import math

import numpy as np
import pytest

from umamba_seg.evaluation.measures import measure


def ball(radius: float, shift: int = 0) -> np.ndarray:
    z, y, x = np.indices((24, 24, 24))
    return (z - 12) ** 2 + (y - 12) ** 2 + (x - 12 - shift) ** 2 <= radius**2


def surface(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return np.argwhere(mask & ~binary_erosion(mask))


def test_dice_and_distances_are_those_of_their_definitions():
    a, b, spacing = ball(6), ball(6, 2), (2.0, 1.0, 0.5)
    points = [surface(mask) * spacing for mask in (a, b)]
    there = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
    one, other = there.min(1), there.min(0)

    found = measure(a, b, spacing, 2.0)

    assert found.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert found.hd95 == pytest.approx(max(np.percentile(one, 95), np.percentile(other, 95)), rel=1e-5)
    assert found.assd == pytest.approx((one.sum() + other.sum()) / (len(one) + len(other)), rel=1e-5)
    assert found.reference_ml == pytest.approx(a.sum() / 1000)


def test_equal_masks_agree_and_a_tolerance_forgives():
    a, b = ball(6), ball(6, 1)

    same, near, strict = measure(a, a, (1, 1, 1), 1.0), measure(a, b, (1, 1, 1), 1.5), measure(a, b, (1, 1, 1), 0.1)

    assert (same.dice, same.nsd, same.hd95, same.assd) == (1.0, 1.0, 0.0, 0.0)
    assert near.nsd == pytest.approx(1.0)
    assert strict.nsd < 0.8


def test_a_mask_at_the_border_has_a_surface_there():
    a = np.zeros((6, 6, 6), bool)
    a[:3] = True

    assert measure(a, a, (1, 1, 1), 1.0).nsd == 1.0


def test_two_empty_masks_have_no_measure_and_one_has_the_worst():
    empty, a = np.zeros((24, 24, 24), bool), ball(3)

    neither, one = measure(empty, empty, (1, 1, 1), 1.0), measure(a, empty, (1, 2, 2), 1.0)

    assert all(math.isnan(x) for x in (neither.dice, neither.nsd, neither.hd95, neither.assd))
    assert (one.dice, one.nsd, one.is_half_empty) == (0.0, 0.0, True)
    assert one.hd95 == pytest.approx(math.sqrt(24**2 + 48**2 + 48**2))
    assert one.predicted_ml == 0.0


def test_two_axes_work_too():
    a, b = ball(6)[12], ball(6, 1)[12]

    assert 0.8 < measure(a, b, (1, 1), 1.0).dice < 1

"""Labels decided block by block, against all logits resized by nnU-Net's function."""

import numba
import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg
from scipy.ndimage import gaussian_filter, zoom

from umamba_seg.inference.decide import INSIDE, Decision, Rule, Taps, _value

sizes = st.tuples(*[st.integers(1, 40)] * 3)


def logits(classes, shape, seed):
    rng = np.random.default_rng(seed)
    smooth = [gaussian_filter(rng.normal(size=shape), 1.5) * 20 for _ in range(classes)]
    return np.stack(smooth).astype(np.float16)


def decided(values, shape, rule, separate, step):
    labels = np.full(shape, 99, np.uint8)
    decision = Decision(values.shape[1:], labels, rule, separate=None if separate is None else (separate, 0), threads=2)
    led = np.pad(values, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=np.nan).astype(np.float32)
    for first in range(0, values.shape[1], step):
        decision.take(led[:, first : first + step + 1])
    return labels


def resized(values, shape, separate):
    return resample_data_or_seg(values, shape, False, separate, 1, separate is not None, 0)


@numba.njit
def all_values(slab, out, taps):
    for z, y, x in np.ndindex(out.shape):
        out[z, y, x] = _value(0, z, y, x, slab, taps, False)


@settings(deadline=None, max_examples=100)
@given(sizes, sizes, st.integers(0, 99))
def test_values_are_those_of_scipy_to_the_last_bit(grid, shape, seed):
    values = np.random.default_rng(seed).normal(size=grid).astype(np.float16)
    factors = [1 / f for f in np.divide(grid, shape)]
    expected = zoom(values.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
    taps = [Taps.of(n, o, 1) for n, o in zip(grid, shape, strict=True)]
    tables = tuple(table for t in taps for table in (t.low, t.high, t.share))

    actual = np.empty(shape)
    all_values(values[None].astype(np.float32), actual, tables)

    assert np.array_equal(actual, expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), sizes, sizes, st.sampled_from([None, 0, 1, 2]), st.integers(1, 9), st.integers(0, 99))
@example(4, (1, 12, 32), (7, 13, 4), None, 1, 33)  # a tie that hangs on the last bit beyond an end
def test_the_largest_wins_as_in_nnunet(classes, grid, shape, separate, step, seed):
    values = logits(classes, grid, seed)

    actual = decided(values, shape, Rule(None, is_rounded=True), separate, step)

    assert np.array_equal(actual, resized(values, shape, separate).argmax(0))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), sizes, sizes, st.sampled_from([None, 0, 1, 2]), st.integers(1, 9), st.integers(0, 99))
def test_later_regions_cover_earlier_ones_as_in_nnunet(regions, grid, shape, separate, step, seed):
    values, order = logits(regions, grid, seed), tuple(range(regions, 0, -1))
    inside = torch.from_numpy(resized(values, shape, separate)).float().sigmoid().numpy() > 0.5
    expected = np.zeros(shape, np.uint8)
    for where, label in zip(inside, order, strict=True):
        expected[where] = label

    actual = decided(values, shape, Rule(order, is_rounded=True), separate, step)

    assert np.array_equal(actual, expected)


def test_ties_go_to_the_first_class_and_the_two_zeros_tie():
    values = np.zeros((3, 2, 2, 2), np.float16)
    values[0] = -0.0

    assert not decided(values, (5, 5, 5), Rule(None, is_rounded=True), None, 1).any()


def test_half_a_probability_is_a_logit_above_the_smallest_half():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]

    assert np.array_equal(torch.from_numpy(halves).float().sigmoid().numpy() > 0.5, halves > INSIDE)


def test_without_rounding_values_that_differ_less_than_a_half_are_told_apart():
    values = np.zeros((2, 2, 2, 2), np.float32)
    values[0], values[1] = 10, 10.001

    assert decided(values, (2, 2, 2), Rule(None, is_rounded=False), None, 2).all()

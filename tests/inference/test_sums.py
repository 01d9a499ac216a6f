"""Rolling sums of tiles, against all of them at once in torch's half precision."""

import numpy as np
import pytest
import torch

from umamba_seg.inference.sums import DeviceSums, PreciseSums, Sums
from umamba_seg.inference.tiles import Window, importance

WINDOW = Window((20, 9, 8), (6, 5, 4), 0.5)
FLAT = Window((11, 9, 8), (1, 5, 4), 0.5, is_flat=True)


def make(kind, window, folds):
    if kind is DeviceSums:
        return DeviceSums(window, 3, folds, torch.device("cpu"))
    return kind(window, 3, folds, np.zeros, threads=2)


def tile_of(window, fold, start):
    generator = torch.Generator().manual_seed(hash((fold, *start)) % 2**31)
    return torch.randn(3, *window.tile, generator=generator) * 20


def swept(kind, window, folds):
    """The means of all rows, finished as soon as they may be and no later than they must."""
    sums = make(kind, window, folds)
    rows, plane = [], (slice(0, window.grid[1]), slice(0, window.grid[2]))

    def hand_on(until):
        count = until - sums.first
        means = np.full((3, 1 + count, *window.grid[1:]), np.nan, np.float32)
        sums.finish(slice(0, count), plane, means)
        rows.append(means[:, 1:])
        sums.move_on(count)

    for start in window:
        if start[0] + window.tile[0] > sums.first + sums.height:
            hand_on(start[0])
        for fold in range(folds):
            sums.add(fold, tile_of(window, fold, start), start)
        sums.count(start)
    hand_on(window.grid[0])
    return np.concatenate(rows, 1)


def all_at_once(window, folds):
    """As nnU-Net does it."""
    weights = torch.tensor(importance(window.tile))
    total = None
    for fold in range(folds):
        sums, counts = torch.zeros(3, *window.grid, dtype=torch.half), torch.zeros(window.grid, dtype=torch.half)
        for start in window:
            box = tuple(slice(s, s + t) for s, t in zip(start, window.tile, strict=True))
            tile = tile_of(window, fold, start)
            tile *= weights
            sums[(slice(None), *box)] += tile
            counts[box] += weights
        torch.div(sums, counts, out=sums)
        total = sums if total is None else total.add_(sums)
    if folds > 1:
        total /= folds
    return total.float().numpy()


@pytest.mark.parametrize("folds", [1, 2, 3])
@pytest.mark.parametrize("window", [WINDOW, FLAT], ids=["volume", "slices"])
@pytest.mark.parametrize("kind", [Sums, DeviceSums])
def test_rolling_rows_give_the_same_bits_as_the_whole_grid(kind, window, folds):
    assert np.array_equal(swept(kind, window, folds), all_at_once(window, folds))


@pytest.mark.parametrize("folds", [1, 3])
def test_float32_is_near_and_not_the_same(folds):
    expected, actual = all_at_once(WINDOW, folds), swept(PreciseSums, WINDOW, folds)

    assert 0 < np.abs(actual - expected).max() < 0.3  # of values up to 60, four times a half of them


def test_the_height_is_that_of_a_tile():
    assert make(Sums, WINDOW, 1).height == 6
    assert make(Sums, FLAT, 1).height == 8


@pytest.mark.parametrize("value", [7000.0, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", [Sums, DeviceSums])
def test_what_a_half_cannot_hold_is_noted(kind, value):
    sums = make(kind, WINDOW, 1)
    sums.add(0, torch.zeros(3, 6, 5, 4), (0, 0, 0))
    assert sums.is_finite

    sums.add(0, torch.full((3, 6, 5, 4), value), (0, 0, 0))
    assert not sums.is_finite


def test_float32_holds_more():
    sums = make(PreciseSums, WINDOW, 1)
    sums.add(0, torch.full((3, 6, 5, 4), 7000.0), (0, 0, 0))
    assert sums.is_finite

    sums.add(0, torch.full((3, 6, 5, 4), float("nan")), (0, 0, 0))
    assert not sums.is_finite

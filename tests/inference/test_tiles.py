"""Places and weights of tiles, against nnU-Net's functions."""

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from umamba_seg.inference.tiles import Window, importance, padding, starts


@given(st.integers(1, 128), st.integers(0, 300), st.sampled_from([0.25, 0.5, 0.75, 0.9, 1.0]))
def test_tiles_start_where_nnunet_starts_them(tile, more, step):
    assert starts(tile + more, tile, step) == compute_steps_for_sliding_window((tile + more,), (tile,), step)[0]


@pytest.mark.parametrize(
    "tile", [(24, 24), (16, 16, 16), (64, 64, 64), (40, 56, 40), (12, 96, 80), (1, 5, 7), (48, 192, 160)]
)
def test_voxels_count_as_much_as_in_nnunet(tile):
    compute_gaussian.cache_clear()
    expected = compute_gaussian(tile, 1 / 8, 10, device=torch.device("cpu")).numpy()

    assert np.array_equal(importance(tile), expected)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_images_are_padded_as_nnunet_pads_them(shape, tile):
    image = np.arange(1, np.prod(shape) + 1).reshape(shape)
    expected = pad_nd_image(image, tile, "constant", {"constant_values": 0})

    assert np.array_equal(np.pad(image, padding(shape, tile)), expected)


def test_the_first_axis_is_outermost_and_slices_of_flat_tiles_are_all_visited():
    assert list(Window((4, 4, 4), (2, 4, 4), 0.5)) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert list(Window((3, 6, 4), (1, 4, 4), 0.5, is_flat=True)) == [(z, y, 0) for z in range(3) for y in (0, 2)]
    assert Window((3, 6, 4), (1, 4, 4), 0.5, is_flat=True).count() == 6

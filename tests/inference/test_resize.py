"""Resizing by axis matrices, against nnU-Net's function, which calls skimage and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

from umamba_seg.inference.resize import axis_rows, resize

sizes = st.tuples(*[st.integers(1, 40)] * 3)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, st.sampled_from([0, 1, 3]), st.sampled_from([None, 0, 1, 2]), st.integers(1, 3))
def test_any_size_to_any_other_as_nnunet_does(shape, target, order, separate, threads):
    image = np.random.default_rng(sum(shape)).normal(scale=3, size=(2, *shape)).astype(np.float32)
    expected = resample_data_or_seg(image, target, False, separate, order, separate is not None, 0)

    actual = resize(image, target, order=order, separate_axis=separate, threads=threads)

    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=2e-7)


@pytest.mark.parametrize("separate", [0, 1, 2])
def test_rows_of_long_voxels_may_be_means_too(separate):
    image = np.random.default_rng(0).normal(size=(1, 9, 10, 11)).astype(np.float32)
    expected = resample_data_or_seg(image, (13, 14, 15), False, separate, 3, True, 1)

    actual = resize(image, (13, 14, 15), order=3, separate_axis=separate, separate_order=1)

    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("size", "target"), [(300, 200), (512, 273), (200, 300), (7, 64), (1, 5), (64, 1)])
def test_rows_of_a_matrix_add_up_to_one(size, target, order):
    rows = axis_rows(size, target, order)

    assert rows.weights.shape[0] == len(rows.first) == target
    assert np.abs(rows.weights.sum(1) - 1).max() < 1e-9
    assert rows.first.min() >= 0
    assert (rows.first + rows.weights.shape[1]).max() <= size


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order"):
        axis_rows(4, 5, 2)


def test_what_keeps_its_size_is_copied():
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)

    assert np.array_equal(resize(image, (4, 5, 6), order=3), image)

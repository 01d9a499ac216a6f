import numpy as np
import pytest

from umamba_seg.datasets.fix.voxels import relabel


@pytest.mark.parametrize(
    ("values", "mapping", "expected", "dtype"),
    [
        ([0, 1, 2], {1: 2, 2: 1}, [0, 2, 1], np.uint8),  # both at once, not one after the other
        ([0, 255], {255: 300}, [0, 300], np.uint16),
        ([0, -3], {-3: 3}, [0, 3], np.uint8),
        ([0.0, 4.0], {4: 3}, [0, 3], np.uint8),
        ([0.0, 0.5, 4.0], {4: 3}, [0, 0.5, 3], np.float64),
        ([0.0, np.nan, 4.0], {4: 3}, [0, np.nan, 3], np.float64),
        ([0.0, np.inf, 4.0], {4: 3}, [0, np.inf, 3], np.float64),
    ],
)
def test_values_become_others_and_what_is_no_label_stays(values, mapping, expected, dtype):
    array = np.array(values)
    before = array.copy()

    made = relabel(array, mapping)

    np.testing.assert_array_equal(made, expected)
    assert made.dtype == dtype
    np.testing.assert_array_equal(array, before)

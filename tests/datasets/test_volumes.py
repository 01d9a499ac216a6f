import numpy as np
import pytest
import SimpleITK

from tests.datasets.liver import affine
from umamba_seg.datasets.volumes import Volume, as_labels, read, write

TURNED = affine() @ np.array([[0, -1, 0, 3], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_written_is_read_again_by_us_and_by_nnunets_library(tmp_path, ending, dtype):
    array = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    file = tmp_path / f"x{ending}"

    write(file, Volume(array, TURNED))

    again = read(file)
    np.testing.assert_array_equal(again.array, array)
    np.testing.assert_allclose(again.affine, TURNED, atol=1e-5)
    theirs = SimpleITK.ReadImage(str(file))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(theirs), array.T)
    place = np.diag([-1, -1, 1, 1]) @ TURNED @ [1, 2, 3, 1]  # to the left, to the back
    np.testing.assert_allclose(theirs.TransformIndexToPhysicalPoint((1, 2, 3)), place[:3], atol=1e-4)


@pytest.mark.parametrize(("values", "dtype"), [([0, 255], np.uint8), ([0, 300], np.uint16), ([-3, 200], np.int16)])
def test_labels_take_the_smallest_type(values, dtype):
    made = as_labels(np.array(values, np.float64))

    assert (made.dtype, made.tolist()) == (dtype, values)

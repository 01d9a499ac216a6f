"""Volumes, places and pieces of classes, on shapes whose numbers are known."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from umamba_seg.errors import DataError
from umamba_seg.inference.statistics import statistics

SPACING, ORIGIN = (1.0, 2.0, 3.0), (10.0, -20.0, 30.0)


def save(path: Path, array: np.ndarray) -> Path:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    SimpleITK.WriteImage(image, str(path))
    return path


def cubes() -> np.ndarray:  # z, y, x
    array = np.zeros((10, 12, 14), np.uint8)
    array[1:3, 1:4, 1:5] = 1
    array[7:9, 9:10, 10:12] = 1
    array[5, 5, 5] = 3
    return array


def test_a_class_has_its_volume_place_and_pieces(tmp_path):
    one, three = statistics(save(tmp_path / "case.nii.gz", cubes()), names={1: "liver"})

    assert (one.case, one.name, one.voxels) == ("case", "liver", 24 + 4)
    assert one.ml == pytest.approx(28 * 6 / 1000)
    assert one.box == ((1, 11), (1, 9), (1, 8))
    assert (one.components, one.largest_share) == (2, 24 / 28)
    assert three.name == "3"
    assert three.centroid == pytest.approx((10 + 5 * 1, -20 + 5 * 2, 30 + 5 * 3))
    assert three.intensity is None


def test_intensities_are_those_under_the_label(tmp_path):
    grey = np.where(cubes() == 1, 40.0, -1000.0).astype(np.float32)
    grey[1, 1, 1] = 68.0

    one, three = statistics(save(tmp_path / "a.nrrd", cubes()), image=save(tmp_path / "i.nrrd", grey))

    assert one.intensity == pytest.approx((41.0, np.std([68.0, *[40.0] * 27])))
    assert three.intensity == pytest.approx((-1000.0, 0.0))


def test_an_empty_label_map_has_none(tmp_path):
    assert statistics(save(tmp_path / "a.nrrd", cubes() * 0)) == []


def test_what_does_not_fit_or_cannot_be_read_is_told(tmp_path):
    labels = save(tmp_path / "a.nrrd", cubes())
    with pytest.raises(DataError, match="14×12×10"):
        statistics(labels, image=save(tmp_path / "i.nrrd", cubes()[1:]))
    (tmp_path / "b.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        statistics(tmp_path / "b.nii.gz")


def test_the_command_writes_a_table(umamba):
    save(umamba.folder / "case.nii.gz", cubes())

    answer = umamba("statistics", "case.nii.gz", "--csv", "out.csv", "--json")

    assert answer.code == 0, answer.err
    assert [entry["voxels"] for entry in answer.document()["statistics"]] == [28, 1]
    assert len((umamba.folder / "out.csv").read_text().splitlines()) == 3
    assert umamba("statistics", "none.nii.gz").code == 3

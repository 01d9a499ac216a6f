"""The Python API: arrays, files, geometry, faults."""

import shutil

import nibabel
import numpy as np
import pytest

from tests.inference.stock import labels_in, write_image
from umamba_seg import load_model
from umamba_seg.bench.made_up_model import MadeUp
from umamba_seg.errors import DataError, ModelError, UsageError
from umamba_seg.inference.cases import Case
from umamba_seg.inference.model_folder import ModelFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def results(folder):
    return MadeUp(spacing=(1.2, 0.9, 1.0), folds=(0, 1)).write(folder)


@pytest.fixture(scope="module")
def model(results):
    with load_model(results, folds=[0], mirror=False, device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def image(folder):
    return write_image(folder / "a_0000.nii.gz", (18, 22, 20), (1.5, 1.0, 1.1))


def test_an_array_gives_the_labels_of_its_file_in_either_order(model, image):
    expected = model.predict(image).array
    grid = nibabel.load(image)
    xyz, spacing = np.asarray(grid.dataobj), grid.header.get_zooms()

    assert np.array_equal(model.predict_array(xyz, spacing=spacing, order="xyz"), expected.transpose(2, 1, 0))
    zyx = xyz.transpose(2, 1, 0)
    kept = zyx.copy()
    assert np.array_equal(model.predict_array(zyx, spacing=spacing[::-1], order="zyx"), expected)
    assert np.array_equal(zyx, kept)


def test_a_segmentation_knows_its_place_and_its_labels(model, image, tmp_path):
    made = model.predict(image)

    assert made.labels == {"background": 0, "class 1": 1, "class 2": 2}
    np.testing.assert_allclose(made.affine, nibabel.load(image).affine, atol=1e-5)
    assert made.save(tmp_path / "out/a.nii.gz").is_file()
    assert np.array_equal(labels_in(tmp_path / "out/a.nii.gz"), made.array)
    assert not list((tmp_path / "out").glob(".*"))


def test_many_images_are_segmented_one_by_one_and_a_broken_one_ends_nothing(model, image, tmp_path):
    for name in ("a", "c"):
        shutil.copy(image, tmp_path / f"{name}_0000.nii.gz")
    (tmp_path / "b_0000.nii.gz").write_bytes(b"no image")

    made = model.predict_many(tmp_path, out=tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert next(made).name == "a"
    assert [one.name for one in made] == ["c"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]


@pytest.mark.parametrize(
    ("array", "spacing", "order", "fault", "words"),
    [
        (np.zeros((4, 4, 4)), (1, 1, 1), "xzy", UsageError, "'zyx' or 'xyz'"),
        (np.zeros((4, 4)), (1, 1, 1), "zyx", DataError, "1 channels"),
        (np.zeros((2, 4, 4, 4)), (1, 1, 1), "zyx", DataError, r"got shape \(2, 4, 4, 4\)"),
        (np.zeros((4, 4, 4)), (1, 1), "zyx", DataError, "three numbers"),
        (np.zeros((4, 4, 4)), (1, 0, 1), "zyx", DataError, "above 0"),
        (np.full((4, 4, 4), np.nan), (1, 1, 1), "zyx", DataError, "NaN"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(model, array, spacing, order, fault, words):
    with pytest.raises(fault, match=words):
        model.predict_array(array, spacing=spacing, order=order)


def test_a_missing_file_is_told(model, tmp_path):
    with pytest.raises(DataError, match="lacks MR"):
        model.predict(tmp_path / "none.nii.gz")


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (lambda path: shutil.rmtree(path), "no such model folder"),
        (lambda path: (path / "plans.json").unlink(), "no plans.json"),
        (lambda path: shutil.rmtree(path / "fold_0"), "fold 0 is not trained; there are 1"),
        (lambda path: (path / "fold_0/checkpoint_final.pth").write_bytes(b"cut"), "checkpoint_final.pth"),
    ],
)
def test_models_that_are_incomplete_are_told(results, tmp_path, breaks, words):
    shutil.copytree(results, tmp_path / "model")
    breaks(tmp_path / "model")

    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "model", folds=[0], device="cpu")


def test_an_unknown_network_class_is_named(results, tmp_path):
    shutil.copytree(results, tmp_path / "model")
    plans = tmp_path / "model/plans.json"
    plans.write_text(plans.read_text().replace("dynamic_network_architectures.architectures.unet", "nobody.has.this"))

    with pytest.raises(ModelError, match=r"the package of nobody\.has\.this\.PlainConvUNet is not installed"):
        load_model(tmp_path / "model", device="cpu")


def test_folds_are_found_and_chosen(results):
    assert ModelFolder.open(results).folds == (0, 1)
    assert ModelFolder.open(results, [1]).folds == (1,)


def test_sums_beyond_half_precision_are_made_in_float32_and_told(folder, image, tmp_path):
    import torch

    results = MadeUp(spacing=(1.2, 0.9, 1.0)).write(tmp_path)
    file = results / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    for name in ("decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"):
        content["network_weights"][name] *= 1000
    torch.save(content, file)
    told: list[str] = []

    made = load_model(results, mirror=False, device="cpu", tell=told.append).predict(image)

    expected = load_model(results, mirror=False, device="cpu", accumulate="fp32").predict(image)
    assert np.array_equal(made.array, expected.array)
    assert any("beyond half precision" in sentence for sentence in told)


def test_a_network_that_gives_nan_is_an_error_of_the_case(image, tmp_path):
    import torch

    results = MadeUp().write(tmp_path)
    file = results / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    content["network_weights"]["decoder.seg_layers.0.bias"][:] = float("nan")
    torch.save(content, file)

    with pytest.raises(DataError, match="NaN"):
        load_model(results, mirror=False, device="cpu").predict(image)


@pytest.mark.parametrize("kind", ["<i2", ">i2", "u1", "<f4", ">f8", "<u2", "<i4"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("slope", [None, 2.0])
def test_images_are_read_as_nnunets_reader_reads_them(model, tmp_path, kind, ending, slope):
    rng = np.random.default_rng(0)
    affine = np.array([[0.7, 0.1, 0.0, 5.0], [-0.1, 0.8, 0.2, -3.0], [0.0, -0.2, 1.5, 2.0], [0, 0, 0, 1]])
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * [0.7, 0.8, 1.5]
    grid = nibabel.Nifti1Image(rng.integers(0, 120, (5, 6, 7)).astype(kind), affine)
    grid.header.set_data_dtype(kind)
    if slope:
        grid.header.set_slope_inter(slope, 3.0)
    file = tmp_path / f"a_0000{ending}"
    nibabel.save(grid, file)
    expected, geometry = model.reader.read_images([str(file)])

    image, properties = model.read(Case("a", (file,), file))

    assert image.dtype == expected.dtype
    assert image.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, expected)
    assert properties == geometry

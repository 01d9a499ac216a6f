"""What is told of a case that is unlike the training data, and that nothing is told of ordinary ones."""

import json
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import SHARED
from umamba_seg.datasets.phantoms import make_phantom
from umamba_seg.inference.model_folder import ModelFolder
from umamba_seg.inference.unlike import MOST_VOXELS, remarks

HIPPOCAMPUS = SHARED / "data/Dataset004_Hippocampus"
SHAPE, SPACING = (20, 40, 40), (3.0, 1.0, 1.0)
SCHEMES = {"CT": "CTNormalization", "noNorm": "NoNormalization"}
Case = tuple[np.ndarray, Sequence[float], np.ndarray]  # image (c, z, y, x), spacing, labels (z, y, x)


def make_model(
    folder: Path,
    cases: Iterable[Case],
    channels: Sequence[str] = ("CT",),
    *,
    forward: Sequence[int] = (0, 1, 2),
    has_fingerprint: bool = True,
) -> ModelFolder:
    """A model folder as nnU-Net leaves it, but for the weights; measured on cases by nnU-Net's own function."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    shapes, spacings, intensities = [], [], []
    for image, spacing, labels in cases:
        values, _ = DatasetFingerprintExtractor.collect_foreground_intensities(labels[None], image, num_samples=2000)
        shapes.append(image.shape[1:]), spacings.append(list(spacing)), intensities.append(values)
    pooled = [np.concatenate([case[channel] for case in intensities]) for channel in range(len(channels))]
    low, high = (np.percentile(pooled, percentile, axis=1) for percentile in (0.5, 99.5))
    foreground = {
        str(i): {
            "min": float(values.min()),
            "max": float(values.max()),
            "percentile_00_5": float(low[i]),
            "percentile_99_5": float(high[i]),
        }
        for i, values in enumerate(pooled)
    }
    plans = {
        "transpose_forward": list(forward),
        "transpose_backward": [list(forward).index(axis) for axis in range(3)],
        "original_median_spacing_after_transp": np.median(spacings, axis=0)[list(forward)].tolist(),
        "original_median_shape_after_transp": np.median(shapes, axis=0)[list(forward)].tolist(),
        "foreground_intensity_properties_per_channel": foreground,
        "configurations": {
            "3d_fullres": {"normalization_schemes": [SCHEMES.get(name, "ZScoreNormalization") for name in channels]}
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    if has_fingerprint:
        fingerprint = {"spacings": spacings, "shapes_after_crop": shapes}
        (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return ModelFolder(folder, (0,), {"channel_names": {str(i): name for i, name in enumerate(channels)}})


def phantom(seed: int, modality: str = "ct") -> Case:
    made = make_phantom(seed, modality=modality, shape=SHAPE, spacing=SPACING)
    return made.image[None], made.spacing, made.labels


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_model(tmp_path_factory.mktemp("ct"), map(phantom, range(6)))


@pytest.fixture(scope="module")
def mr(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_model(tmp_path_factory.mktemp("mr"), (phantom(i, "mr") for i in range(6)), ["MR"])


def scaled(low: float, high: float) -> np.ndarray:
    """A CT phantom brought to a range of values, as exports to pictures do."""
    image, _, _ = phantom(50)
    return np.interp(image, (image.min(), image.max()), (low, high)).astype(np.float32)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_nothing_is_told_of_ordinary_phantoms(modality, ct, mr):
    model = {"ct": ct, "mr": mr}[modality]
    for seed in range(50, 62):
        image, spacing, _ = phantom(seed, modality)
        assert remarks(image, spacing, model) == [], seed


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="needs the Hippocampus subset")
def test_nothing_is_told_of_ordinary_mr(tmp_path):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reader = SimpleITKIO()

    def read(file: Path) -> Case:
        image, properties = reader.read_images([str(file)])
        labels = HIPPOCAMPUS / "labelsTr" / file.name.replace("_0000", "")
        known = reader.read_seg(str(labels))[0][0] if labels.is_file() else np.zeros(image.shape[1:])
        return image, properties["spacing"], known

    training = sorted((HIPPOCAMPUS / "imagesTr").glob("*.nii.gz"))
    model = make_model(tmp_path / "full", map(read, training), ["MRI"])
    bare = make_model(tmp_path / "bare", map(read, training), ["MRI"], has_fingerprint=False)
    test = sorted((HIPPOCAMPUS / "imagesTs").glob("*.nii.gz"))
    assert len(test) == 30

    for file in test:
        image, spacing, _ = read(file)
        assert remarks(image, spacing, model) == remarks(image, spacing, bare) == [], file.name


def test_voxels_of_another_size_are_told(ct):
    image, _, _ = phantom(50)
    coarse, fine = image[:, ::4], np.repeat(image, 4, axis=3)[..., 60:100]

    assert remarks(coarse, (12, 1, 1), ct) == [
        "spacing: 12 mm along z; the training median is 3 mm (3 to 3)",
    ]
    assert remarks(fine, (3, 1, 0.25), ct) == [
        "spacing: 0.25 mm along x; the training median is 1 mm (1 to 1)",
        "field of view: 10 mm along x; training cases have 40 to 40 mm",
    ]


def test_voxels_that_some_training_case_had_are_not_told(tmp_path):
    image, _, labels = phantom(0)
    cases = [(image, (mm, 1, 1), labels) for mm in (1, 1, 5)]

    full, bare = make_model(tmp_path / "full", cases), make_model(tmp_path / "bare", cases, has_fingerprint=False)

    assert remarks(image, (5, 1, 1), full) == []
    assert remarks(image, (5, 1, 1), bare) == [
        "spacing: 5 mm along z; the training median is 1 mm",
        "field of view: 100 mm along z; the training median is 20 mm",
    ]


def test_a_field_of_view_of_another_size_is_told(ct):
    image, spacing, _ = phantom(50)

    assert remarks(image[:, :9], spacing, ct) == ["field of view: 27 mm along z; training cases have 60 to 60 mm"]
    long = np.concatenate([image] * 3, axis=1)
    assert remarks(long, spacing, ct) == ["field of view: 180 mm along z; training cases have 60 to 60 mm"]


def test_empty_margins_do_not_count_as_field_of_view(mr):
    image, spacing, _ = phantom(50, "mr")
    padded = np.pad(image, ((0, 0), (40, 40), (60, 60), (60, 60)))

    assert remarks(padded, spacing, mr) == []
    ends = remarks(np.where(np.arange(SHAPE[0])[:, None, None] < 5, image, 0), spacing, mr)
    assert ends == ["field of view: 15 mm along z; training cases have 60 to 60 mm"]


@pytest.mark.parametrize("transposed", [False, True])
def test_axes_are_those_of_the_files_whatever_the_network_has(transposed, tmp_path):
    model = make_model(tmp_path, map(phantom, range(3)), forward=(2, 0, 1))
    image, spacing, _ = phantom(50)

    def told(image: np.ndarray, spacing: Sequence[float]) -> list[str]:
        if transposed:
            image, spacing = image.transpose(0, 3, 1, 2), [spacing[axis] for axis in (2, 0, 1)]
        return remarks(image, spacing, model, transposed=transposed)

    assert told(image, spacing) == []
    assert told(image[:, ::4], (12, 1, 1)) == ["spacing: 12 mm along z; the training median is 3 mm (3 to 3)"]


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 4095)])
def test_ct_that_is_not_in_hounsfield_units_is_told(low, high, ct):
    (remark,) = remarks(scaled(low, high), SPACING, ct)

    assert "none below 0; the training foreground goes down to -" in remark


def test_ct_without_air_is_told_where_training_had_it(tmp_path):
    image, spacing, labels = phantom(0)
    lungs = make_model(tmp_path, [(image, spacing, np.where(image[0] < -300, 1, labels))])

    (remark,) = remarks(np.maximum(image, -160), spacing, lungs)

    assert remark.startswith("channel CT: values of -160 to ")
    assert "none below -200; the training foreground begins at -1" in remark


@pytest.mark.parametrize("low", [-1, 0])
def test_ct_of_a_narrow_range_is_told(low, ct):
    (remark,) = remarks(scaled(low, 1), SPACING, ct)

    assert remark.startswith(f"channel CT: values of {low} to 0.")
    assert "; the training foreground has " in remark


def test_mr_with_the_negative_values_of_ct_is_told(mr):
    image, spacing, _ = phantom(50)

    (remark,) = remarks(image, spacing, mr)

    assert "channel MR: values down to -10" in remark
    assert "as CT has them; the training foreground begins at " in remark


@pytest.mark.parametrize("change", [lambda x: x / 100, lambda x: 3 * x, lambda x: x - 5])
def test_other_units_of_mr_are_not_told_as_every_image_is_brought_to_one_scale(change, mr):
    image, spacing, _ = phantom(50, "mr")

    assert remarks(change(image), spacing, mr) == []


def test_values_far_outside_the_training_range_are_told(mr):
    image, spacing, _ = phantom(50, "mr")

    (remark,) = remarks(image + 32768, spacing, mr)

    assert remark.startswith("channel MR: values of 3.2")
    assert "; the training foreground has " in remark


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_channel_is_told(value, tmp_path):
    cases = [(np.concatenate([phantom(i)[0], phantom(i, "mr")[0]]), SPACING, phantom(i)[2]) for i in range(3)]
    model = make_model(tmp_path, cases, ["CT", "T1"])
    image = cases[0][0].copy()
    image[1] = value

    (remark,) = remarks(image, SPACING, model)

    assert remark.startswith(f"channel T1: every voxel is {value}; the training foreground has ")
    image[1, 3, 17, 23] = 100  # hardly ever in the sample
    assert not any("every voxel" in remark for remark in remarks(image, SPACING, model))


def test_a_model_that_keeps_nothing_of_its_training_data_has_nothing_to_compare_with(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps({"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}))
    model = ModelFolder(tmp_path, (0,), {"channel_names": {"0": "CT"}})

    assert remarks(scaled(0, 1), (50, 1, 1), model) == []
    assert remarks(np.zeros((1, 5, 6, 7), np.float32), SPACING, model) == ["channel CT: every voxel is 0"]


def test_single_slices_have_no_thickness(tmp_path):
    image, _, labels = phantom(0)
    flat = make_model(tmp_path, [(image[:, 8:9], (999, 1, 1), labels[8:9])])

    assert remarks(image[:, 8:9], (2000, 1, 1), flat) == []


@pytest.mark.parametrize("shape", [(1, 300, 900, 900), (1, 5, 4000, 4000)])
def test_large_images_are_sampled_and_not_copied(shape, ct):
    image = np.broadcast_to(scaled(-1000, 500)[:, 8:9, 8:9, :1], shape)  # takes no memory of its own
    tracemalloc.start()
    began = time.monotonic()
    remarks(image, SPACING, ct)
    seconds, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 40 * MOST_VOXELS
    assert seconds < 5


def test_a_narrow_axis_keeps_its_planes(ct):
    image, spacing, _ = phantom(50)
    wide = np.repeat(np.repeat(image, 20, axis=2), 20, axis=3)  # 20 x 800 x 800

    assert remarks(wide, (spacing[0], spacing[1] / 20, spacing[2] / 20), ct) == [
        f"spacing: 0.05 mm along {axis}; the training median is 1 mm (1 to 1)" for axis in "yx"
    ]

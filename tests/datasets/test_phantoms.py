import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from umamba_seg.datasets import phantoms
from umamba_seg.datasets.phantoms import HARD, LABELS, ORGANS, Phantom, make_phantom, write_dataset
from umamba_seg.errors import DataError, UsageError

SMALL = (14, 20, 20)


def digest(phantom: Phantom) -> str:
    return hashlib.sha256(phantom.image.tobytes() + phantom.labels.tobytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.gz")
    }


def voxels_by_class(phantom: Phantom) -> dict[str, int]:
    return dict(zip(LABELS, np.bincount(phantom.labels.ravel(), minlength=len(LABELS)).tolist(), strict=True))


def best_threshold_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """Dice of the best interval of values, over all pairs of ends from 100 quantiles."""
    ends = np.append(np.unique(np.quantile(image[image > image.min()], np.linspace(0, 1, 100))), np.inf)
    within, of_mask = (np.append(0, np.cumsum(np.histogram(values, ends)[0])) for values in (image, image[mask]))
    hits = of_mask[None] - of_mask[:, None]  # (start, end) of the interval
    size = np.maximum(within[None] - within[:, None], 0)
    return float((2 * hits / (size + mask.sum())).max())


def test_best_threshold_dice_finds_a_range_of_values():
    image = np.arange(100.0)

    assert best_threshold_dice(image, (image > 20) & (image < 40)) > 0.95
    assert best_threshold_dice(image, image % 2 == 0) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_same_seed_gives_the_same_voxels_and_another_seed_others(modality):
    first = make_phantom(7, modality=modality)

    assert digest(first) == digest(make_phantom(7, modality=modality))
    assert digest(first) != digest(make_phantom(8, modality=modality))


@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("seed", range(15))
def test_every_case_holds_every_class_and_the_hard_ones_are_small(seed, modality):
    voxels = voxels_by_class(make_phantom(seed, modality=modality))

    assert min(voxels.values()) >= 4
    assert max(voxels[name] for name in HARD) < min(voxels[name] for name in ORGANS)


def test_arrays_have_the_types_and_the_shape_that_were_asked_for():
    phantom = make_phantom(0, shape=(13, 31, 27), spacing=(5, 0.8, 0.8))

    assert phantom.image.shape == phantom.labels.shape == (13, 31, 27)
    assert (phantom.image.dtype, phantom.labels.dtype) == (np.float32, np.uint8)
    assert phantom.spacing == (5.0, 0.8, 0.8)


def test_ct_is_in_hounsfield_units():
    phantom = make_phantom(0)
    liver = phantom.image[phantom.labels == LABELS["liver"]]

    assert phantom.image[:, 0, 0].mean() == pytest.approx(-1000, abs=15)
    assert 80 < np.median(liver) < 130
    assert 300 < phantom.image.max() < 1500
    assert np.array_equal(phantom.image, np.rint(phantom.image))


def test_mr_differs_in_gain_from_case_to_case():
    medians = []
    for seed in range(6):
        phantom = make_phantom(seed, modality="mr")
        medians.append(np.median(phantom.image[phantom.labels == LABELS["liver"]]))
        assert phantom.image.min() >= 0

    assert max(medians) > 1.3 * min(medians)


def test_noise_of_ct_is_alike_in_neighbouring_voxels():
    air = make_phantom(0).image[:, :6, :6]
    air = air - air.mean()

    assert (air[:, :, 1:] * air[:, :, :-1]).mean() > 0.3 * (air**2).mean()


@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("name", ["spleen", "kidney"])
def test_no_range_of_values_separates_an_organ(name, modality):
    cases = [make_phantom(seed, modality=modality) for seed in range(8)]
    dice = [best_threshold_dice(case.image, case.labels == LABELS[name]) for case in cases]  # best for each case

    assert np.mean(dice) < 0.7


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    modality=st.sampled_from(["ct", "mr"]),
    shape=st.tuples(*[st.integers(9, 23)] * 3),
)
def test_small_and_odd_shapes_give_a_full_phantom_or_say_that_they_are_too_small(seed, modality, shape):
    if min(shape) < phantoms.SMALLEST:
        with pytest.raises(UsageError, match="at least 12 voxels"):
            make_phantom(seed, modality=modality, shape=shape)
        return
    phantom = make_phantom(seed, modality=modality, shape=shape)

    assert phantom.image.shape == phantom.labels.shape == shape
    assert np.isfinite(phantom.image).all()
    assert min(voxels_by_class(phantom).values()) >= 4


def test_a_shape_in_which_classes_vanish_again_and_again_is_refused(monkeypatch):
    monkeypatch.setattr(phantoms, "FEWEST", 10**6)
    monkeypatch.setattr(phantoms, "ATTEMPTS", 2)

    with pytest.raises(UsageError, match="cannot hold every class"):
        make_phantom(0, shape=SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "pet"}, "modality must be 'ct' or 'mr', got 'pet'"),
        ({"shape": (64, 64)}, "shape must be three numbers"),
        ({"spacing": (1, 0, 1)}, "spacing must be three positive numbers"),
        ({"spacing": (1, math.nan, 1)}, "spacing must be three positive numbers"),
        ({"seed": -1}, "seed must be whole numbers from 0, got -1"),
    ],
)
def test_options_without_meaning_are_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        make_phantom(**{"seed": 0} | options)
    with pytest.raises(UsageError, match=message):
        write_dataset(tmp_path / "raw", cases=1, **options)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_id": 0}, "dataset_id must be from 1 to 999"),
        ({"dataset_id": 1000}, "dataset_id must be from 1 to 999"),
        ({"name": "../elsewhere"}, "name must be letters"),
        ({"cases": 0}, "at least 1 case"),
        ({"test_cases": -1}, "at least 1 case and 0 test cases"),
    ],
)
def test_data_sets_that_nnunet_would_not_take_are_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        write_dataset(tmp_path, **{"cases": 1} | options)


@pytest.mark.parametrize(("modality", "channel"), [("ct", "CT"), ("mr", "MR")])
def test_a_data_set_has_the_folders_and_names_of_nnunet(modality, channel, tmp_path):
    seen = []

    folder = write_dataset(tmp_path / "raw", cases=2, test_cases=1, modality=modality, shape=SMALL, on_case=seen.append)

    assert folder == tmp_path / "raw" / "Dataset900_Phantoms"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "dataset.json",
        "imagesTr/train_000_0000.nii.gz",
        "imagesTr/train_001_0000.nii.gz",
        "imagesTs/test_000_0000.nii.gz",
        "labelsTr/train_000.nii.gz",
        "labelsTr/train_001.nii.gz",
        "labelsTs/test_000.nii.gz",
    ]
    written = json.loads((folder / "dataset.json").read_text())
    assert written["channel_names"] == {"0": channel}
    assert written["labels"] == LABELS
    assert (written["numTraining"], written["file_ending"]) == (2, ".nii.gz")
    assert seen == ["train_000", "train_001", "test_000"]
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["Dataset900_Phantoms"]


def test_a_case_does_not_depend_on_how_many_are_written(tmp_path):
    few = digests(write_dataset(tmp_path / "few", cases=1, test_cases=1, seed=3, shape=SMALL))
    many = digests(write_dataset(tmp_path / "many", cases=3, test_cases=2, seed=3, shape=SMALL))
    other = digests(write_dataset(tmp_path / "other", cases=1, test_cases=1, seed=4, shape=SMALL))

    assert few.items() <= many.items()
    assert not few.items() & other.items()
    assert len(set(many.values())) == len(many)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_voxels_and_geometry_come_back_through_the_reader_of_nnunet(modality, tmp_path, monkeypatch):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    made = []
    monkeypatch.setattr(phantoms, "make_phantom", lambda *a, **k: made.append(make_phantom(*a, **k)) or made[-1])
    folder = write_dataset(tmp_path, cases=2, modality=modality, shape=SMALL)
    reader = SimpleITKIO()

    for number, phantom in enumerate(made):
        source = folder / f"labelsTr/train_{number:03d}.nii.gz"
        image, properties = reader.read_images([str(folder / f"imagesTr/train_{number:03d}_0000.nii.gz")])
        labels, _ = reader.read_seg(str(source))
        reader.write_seg(labels[0], str(tmp_path / "again.nii.gz"), properties)

        assert np.array_equal(image[0], phantom.image)
        assert np.array_equal(labels[0], phantom.labels)
        np.testing.assert_allclose(properties["spacing"], phantom.spacing, rtol=1e-6)
        before, after = SimpleITK.ReadImage(str(source)), SimpleITK.ReadImage(str(tmp_path / "again.nii.gz"))
        np.testing.assert_allclose(after.GetOrigin(), before.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-6)
        assert min(map(abs, before.GetOrigin())) > 0


def test_sizes_spacings_and_origins_differ_from_case_to_case(tmp_path):
    folder = write_dataset(tmp_path, cases=4, shape=(20, 40, 40))
    images = [SimpleITK.ReadImage(str(path)) for path in sorted((folder / "imagesTr").iterdir())]

    for property_ in ("GetSize", "GetSpacing", "GetOrigin"):
        assert len({getattr(image, property_)() for image in images}) == 4


@pytest.mark.parametrize("name", ["Phantoms", "OtherName"])
def test_a_data_set_of_the_same_number_is_never_overwritten(name, tmp_path):
    folder = write_dataset(tmp_path, cases=1, shape=SMALL)
    before = digests(folder)

    with pytest.raises(DataError, match="data set 900 exists") as caught:
        write_dataset(tmp_path, cases=2, name=name, seed=1, shape=SMALL)

    assert caught.value.where == str(folder)
    assert digests(folder) == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_call_leaves_nothing(stop, tmp_path):
    def interrupt(case: str) -> None:
        if case == "train_001":
            raise stop

    with pytest.raises(stop):
        write_dataset(tmp_path, cases=3, shape=SMALL, on_case=interrupt)

    assert not list(tmp_path.iterdir())


def test_importing_phantoms_loads_nothing_heavy():
    heavy = {"SimpleITK", "matplotlib", "nnunetv2", "scipy", "torch"}
    code = f"import sys, umamba_seg.datasets.phantoms; print(sorted({heavy} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

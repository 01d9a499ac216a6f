"""Label maps equal to nnU-Net's in every voxel, whatever the model and the image are like."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from skimage import io

from tests.inference.stock import labels_in, predicted_by_nnunet, write_image
from umamba_seg.bench.made_up_model import MadeUp
from umamba_seg.inference.model import load_model

CT = (("CT", "CTNormalization", False),)
TWO = (("T1", "ZScoreNormalization", True), ("T2", "RescaleTo01Normalization", False))
REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "inner": (3,)}


@dataclass(frozen=True)
class Setting:
    model: MadeUp = field(default_factory=MadeUp)
    shape: tuple[int, ...] = (24, 28, 26)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    mirror: bool = False
    empty: int = 0


SETTINGS = {
    "isotropic": Setting(MadeUp(spacing=(1.2, 0.9, 1.0), classes=4)),
    "no resizing": Setting(),
    "slices far apart": Setting(MadeUp(spacing=(5.0, 1.0, 1.0)), (9, 28, 26), (6.0, 1.3, 1.3)),
    "rows far apart": Setting(MadeUp(spacing=(1.0, 4.5, 1.0)), (20, 9, 26), (1.3, 6.0, 1.3)),
    "columns far apart": Setting(MadeUp(spacing=(1.0, 1.0, 5.0)), (20, 28, 9), (1.3, 1.3, 6.0)),
    "two long axes": Setting(MadeUp(spacing=(4.0, 4.0, 1.0)), (9, 10, 26), (5.0, 5.0, 1.3)),
    "2D": Setting(MadeUp(spacing=(1.0, 1.3), tile=(16, 16), configuration="2d"), (20, 24, 22), (4.0, 1.3, 1.2)),
    "two channels, one masked": Setting(MadeUp(channels=TWO, spacing=(1.1, 0.9, 1.0)), empty=3),
    "CT": Setting(MadeUp(channels=CT, spacing=(1.1, 0.9, 1.0))),
    "regions": Setting(MadeUp(regions=REGIONS, spacing=(1.1, 0.9, 1.0))),
    "regions, no resizing": Setting(MadeUp(regions=REGIONS)),
    "ignored label": Setting(MadeUp(has_ignore_label=True, spacing=(1.1, 0.9, 1.0))),
    "transposed": Setting(MadeUp(transpose=(2, 0, 1), spacing=(1.1, 0.9, 1.2)), spacing=(1.0, 1.1, 0.9), empty=2),
    "smaller than a tile": Setting(MadeUp(spacing=(1.1, 0.9, 1.0)), (5, 30, 9)),
    "one slice": Setting(MadeUp(spacing=(1.0, 1.1, 1.1)), (1, 30, 28)),
    "empty": Setting(MadeUp(spacing=(1.1, 0.9, 1.0)), (6, 7, 8)),
    "mirrored": Setting(MadeUp(spacing=(1.2, 0.9, 1.0)), (18, 20, 22), mirror=True),
    "two folds": Setting(MadeUp(spacing=(1.2, 0.9, 1.0), folds=(0, 1))),
    "three folds, mirrored, 2D": Setting(
        MadeUp(spacing=(1.0, 1.3), tile=(16, 16), configuration="2d", folds=(0, 1, 2)), (5, 24, 22), mirror=True
    ),
    "nibabel": Setting(MadeUp(reader="NibabelIOWithReorient", spacing=(1.2, 0.9, 1.0))),
    "300 classes": Setting(MadeUp(classes=300, tile=(8, 8, 8), spacing=(1.2, 0.9, 1.0)), (10, 9, 11)),
    "torch resampling": Setting(
        MadeUp(
            spacing=(1.2, 0.9, 1.0),
            resampling="resample_torch_fornnunet",
            resampling_options={"force_separate_z": False, "memefficient_seg_resampling": False},
        )
    ),
    "order 0": Setting(
        MadeUp(spacing=(1.2, 0.9, 1.0), resampling_options={"order": 0, "order_z": 0, "force_separate_z": None})
    ),
    "slices linear": Setting(
        MadeUp(spacing=(5.0, 1.0, 1.0), resampling_options={"order_z": 1, "force_separate_z": None}),
        (9, 28, 26),
        (6.0, 1.3, 1.3),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_labels_are_those_of_nnunet(tmp_path, name):
    setting = SETTINGS[name]
    model = setting.model.write(tmp_path)
    files = _images(tmp_path, setting, name)
    predicted_by_nnunet(model, [files], tmp_path / "theirs", mirror=setting.mirror, folds=setting.model.folds)

    with load_model(model, mirror=setting.mirror, device="cpu") as loaded:
        made = loaded.predict(files)
        made.save(tmp_path / "ours.nii.gz")

    theirs = SimpleITK.ReadImage(str(tmp_path / "theirs/a.nii.gz"))
    ours = SimpleITK.ReadImage(str(tmp_path / "ours.nii.gz"))
    expected, actual = SimpleITK.GetArrayFromImage(theirs), SimpleITK.GetArrayFromImage(ours)
    assert actual.dtype == expected.dtype
    assert np.count_nonzero(actual != expected) == 0
    assert len(np.unique(expected)) > 1 or name == "empty", "a test of one class tests nothing"
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, what)() == getattr(theirs, what)()


def test_the_second_stage_of_a_cascade_reads_the_first(tmp_path):
    first = MadeUp(spacing=(2.0, 2.0, 2.0), configuration="3d_lowres").write(tmp_path / "models")
    second = MadeUp(spacing=(1.2, 0.9, 1.0), configuration="3d_cascade_fullres", previous="3d_lowres").write(
        tmp_path / "models"
    )
    image = write_image(tmp_path / "a_0000.nii.gz", (22, 26, 24), (1.0, 1.0, 1.0), empty=2)
    predicted_by_nnunet(first, [[image]], tmp_path / "first")
    predicted_by_nnunet(second, [[image]], tmp_path / "theirs", previous=tmp_path / "first")
    expected = labels_in(tmp_path / "theirs/a.nii.gz")

    with load_model(second, mirror=False, device="cpu") as beside:
        assert np.count_nonzero(beside.predict(image).array != expected) == 0
    with load_model(second, mirror=False, device="cpu", previous=tmp_path / "first") as given:
        assert np.count_nonzero(given.predict(image).array != expected) == 0


def test_pictures_of_three_colours(tmp_path):
    channels = tuple((colour, "RGBTo01Normalization", False) for colour in ("R", "G", "B"))
    made_up = MadeUp(
        channels=channels,
        tile=(16, 16),
        spacing=(1.0, 1.0),
        configuration="2d",
        reader="NaturalImage2DIO",
        ending=".png",
    )
    model = made_up.write(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (30, 41, 3), np.uint8)
    io.imsave(tmp_path / "a_0000.png", image, check_contrast=False)
    predicted_by_nnunet(model, [[tmp_path / "a_0000.png"]], tmp_path / "theirs")

    with load_model(model, mirror=False, device="cpu") as loaded:
        loaded.predict(tmp_path / "a_0000.png").save(tmp_path / "ours.png")

    assert np.array_equal(io.imread(tmp_path / "ours.png"), io.imread(tmp_path / "theirs/a.png"))


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["classes", "regions"])
def test_probabilities_are_those_of_nnunet(tmp_path, regions):
    model = MadeUp(spacing=(1.2, 0.9, 1.0), transpose=(1, 0, 2), regions=regions).write(tmp_path)
    image = write_image(tmp_path / "a_0000.nii.gz", (20, 24, 22), (1.0, 1.0, 1.0), empty=2)
    predicted_by_nnunet(model, [[image]], tmp_path / "theirs", probabilities=True)
    expected = np.load(tmp_path / "theirs/a.npz")["probabilities"]

    with load_model(model, mirror=False, device="cpu") as loaded:
        pixels, properties = loaded.reader.read_images([str(image)])
        place = np.zeros((loaded.engine.classes, *pixels.shape[1:]), np.float32)
        labels = loaded.segment(pixels, properties, probabilities=place)

    assert place.shape == expected.shape
    assert np.abs(place - expected).max() < 2e-3  # a half more or less in a logit, from images resized to 1e-7
    assert np.abs(place - expected).mean() < 1e-6
    assert np.array_equal(labels, labels_in(tmp_path / "theirs/a.nii.gz"))


@pytest.mark.parametrize("batch", [2, 5])
def test_tiles_may_come_in_batches(tmp_path, batch):
    model = MadeUp(spacing=(1.2, 0.9, 1.0)).write(tmp_path)
    image = write_image(tmp_path / "a_0000.nii.gz", (24, 28, 26), (1.0, 1.0, 1.0))

    one, several = (
        load_model(model, mirror=False, device="cpu", batch=count).predict(image).array for count in (1, batch)
    )

    assert np.array_equal(one, several)


def test_summing_in_float32_is_nearly_the_same(tmp_path):
    model = MadeUp(spacing=(1.2, 0.9, 1.0), folds=(0, 1)).write(tmp_path)
    image = write_image(tmp_path / "a_0000.nii.gz", (24, 28, 26), (1.0, 1.0, 1.0))

    half, single = (
        load_model(model, mirror=False, device="cpu", accumulate=way).predict(image).array for way in ("nnunet", "fp32")
    )

    assert 0 < np.mean(half != single) < 0.01


def _images(folder: Path, setting: Setting, name: str) -> list[Path]:
    if name == "empty":
        grid = SimpleITK.GetImageFromArray(np.zeros(setting.shape, np.float32))
        SimpleITK.WriteImage(grid, str(folder / "a_0000.nii.gz"))
        return [folder / "a_0000.nii.gz"]
    return [
        write_image(
            folder / f"a_{channel:04d}.nii.gz", setting.shape, setting.spacing, seed=channel, empty=setting.empty
        )
        for channel in range(len(setting.model.channels))
    ]

"""Pictures that nnU-Net reads otherwise than they were meant are told; those that it reads well are left in peace."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.pictures import CHANNELS, read

CASES = ("a", "b", "c", "d", "e")
SHAPE = (40, 48)  # y, x
C = ("c",)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SHAPE).astype(np.uint8)


def mask(seed: int = 0) -> np.ndarray:
    made = np.zeros(SHAPE, np.uint8)
    made[8:24, 8 + seed : 30] = 1
    made[12:18, 12:20] = 2
    return made


def colours(seed: int, count: int = 3) -> np.ndarray:
    return np.stack([pixels(10 * seed + i) for i in range(count)], -1)


def palette(indices: np.ndarray) -> Image.Image:
    made = Image.new("P", indices.shape[::-1])
    made.putdata(indices.ravel().tolist())
    made.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return made


def describe(raw: Path, channels: int, ending: str) -> None:
    content = {
        "channel_names": {str(i): name for i, name in enumerate(["red", "green", "blue"][:channels])},
        "labels": {"background": 0, "cell": 1, "border": 2},
        "numTraining": len(CASES),
        "file_ending": ending,
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def data_set(folder: Path, channels: int = 1, ending: str = ".png") -> Path:
    raw = folder / "Dataset007_Cells"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for seed, case in enumerate(CASES):
        Image.fromarray(pixels(seed) if channels == 1 else colours(seed)).save(raw / f"imagesTr/{case}_0000{ending}")
        Image.fromarray(mask(seed)).save(raw / f"labelsTr/{case}{ending}")
    describe(raw, channels, ending)
    return raw


def volumes(folder: Path) -> Path:
    raw = folder / "Dataset008_Stacks"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for seed, case in enumerate(CASES):
        tifffile.imwrite(raw / f"imagesTr/{case}_0000.tif", np.stack([pixels(seed + i) for i in range(6)]))
        tifffile.imwrite(raw / f"labelsTr/{case}.tif", np.stack([mask(seed)] * 6))
        for name in ("imagesTr", "labelsTr"):
            (raw / f"{name}/{case}.json").write_text('{"spacing": [3.0, 1.0, 1.0]}')
    describe(raw, 1, ".tif")
    return raw


def found(raw: Path, **options: object) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(x.code, x.severity, x.cases) for x in check(raw, **options).findings}


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quick", [False, True])
def test_good_pictures_are_left_in_peace(tmp_path, ending, channels, quick):
    assert found(data_set(tmp_path, channels, ending), quick=quick) == set()


@pytest.mark.parametrize("quick", [False, True])
def test_good_tiff_volumes_are_left_in_peace(tmp_path, quick):
    assert found(volumes(tmp_path), quick=quick) == set()


def image(raw: Path) -> Path:
    return raw / "imagesTr/c_0000.png"


def label(raw: Path) -> Path:
    return raw / "labelsTr/c.png"


def as_jpeg(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path, format="JPEG", quality=70)


def through_jpeg(path: Path, array: np.ndarray) -> None:
    as_jpeg(path, array)
    with Image.open(path) as lossy:
        pixels_left = np.asarray(lossy)
    Image.fromarray(pixels_left).save(path)


FAULTS: dict[str, tuple[int, Callable[[Path], object], str, str]] = {
    "palette label": (1, lambda r: palette(mask(2)).save(label(r)), "png-mode", "error"),
    "label in colours": (
        1, lambda r: Image.fromarray(np.stack([mask(2)] * 3, -1)).save(label(r)), "png-mode", "error"
    ),
    "label with alpha": (
        1, lambda r: Image.fromarray(np.stack([mask(2), 0 * mask() + 255], -1)).save(label(r)), "png-mode", "error"
    ),
    "scaled 16 bits": (
        1, lambda r: Image.fromarray(mask(2).astype(np.uint16) * 257).save(label(r)), "png-mode", "error"
    ),
    "image with alpha": (3, lambda r: Image.fromarray(colours(2, 4)).save(image(r)), "png-mode", "error"),
    "grey among colours": (3, lambda r: Image.fromarray(pixels(2)).save(image(r)), "png-mode", "error"),
    "colours among grey": (1, lambda r: Image.fromarray(colours(2)).save(image(r)), "png-mode", "error"),
    "grey with alpha": (1, lambda r: Image.fromarray(colours(2, 2)).save(image(r)), "png-mode", "error"),
    "JPEG label": (1, lambda r: as_jpeg(label(r), mask(2) * 100), "lossy", "error"),
    "JPEG before": (1, lambda r: through_jpeg(label(r), mask(2) * 100), "lossy", "error"),
    "JPEG image": (1, lambda r: as_jpeg(image(r), pixels(2)), "lossy", "warning"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_picture_is_one_finding(tmp_path, fault):
    channels, break_it, code, severity = FAULTS[fault]
    raw = data_set(tmp_path, channels)
    break_it(raw)

    assert found(raw) == {(code, severity, C)}


def test_a_16_bit_label_and_a_palette_of_greys_that_say_what_was_meant_are_fine(tmp_path):
    raw = data_set(tmp_path)
    Image.fromarray(mask().astype(np.uint16)).save(label(raw))
    greys = palette(mask(1))
    greys.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
    greys.save(raw / "labelsTr/b.png")
    Image.fromarray(pixels(2).astype(np.uint16) * 257).save(image(raw))

    assert {code for code, *_ in found(raw)} <= {"label-outside", "duplicate-label"}


def test_a_mask_of_255_is_still_told_as_such(tmp_path):
    raw = data_set(tmp_path)
    Image.fromarray((mask() > 0).astype(np.uint8) * 255).save(label(raw))

    assert found(raw) == {("label-undeclared", "error", C)}


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"spacing": [1, 1]}', '{"spacing": [0, 1, 1]}'])
def test_a_side_car_without_a_sound_spacing_is_told(tmp_path, content):
    raw = volumes(tmp_path)
    (raw / "labelsTr/c.json").write_text(content)

    assert found(raw) == {("tiff-spacing", "error", C)}


def test_a_missing_side_car_is_told_and_is_an_error_where_only_one_of_two_is_there(tmp_path):
    raw = volumes(tmp_path)
    (raw / "imagesTr/c.json").unlink()
    assert found(raw) == {("tiff-spacing", "error", C)}

    (raw / "labelsTr/c.json").unlink()
    assert found(raw) == {("tiff-spacing", "warning", C)}


def test_side_cars_that_differ_are_a_mismatch(tmp_path):
    raw = volumes(tmp_path)
    (raw / "labelsTr/c.json").write_text('{"spacing": [1.0, 1.0, 1.0]}')

    assert found(raw) == {("spacing-mismatch", "error", C)}


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(pixels(0)), Image.fromarray(colours(0)), Image.fromarray(colours(0, 4)), palette(mask()),
        Image.fromarray(mask() > 0), Image.fromarray(pixels(0).astype(np.uint16) * 257),
    ],
    ids=["grey", "RGB", "RGBA", "palette", "one bit", "16 bits"],
)  # fmt: skip
def test_pictures_have_the_channels_and_values_that_nnunet_reads(tmp_path, picture, ending):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    if ending == ".bmp" and picture.mode == "I;16":
        pytest.skip("BMP has no 16 bits")
    file = tmp_path / f"x{ending}"
    picture.save(file)
    theirs, _ = NaturalImage2DIO().read_images([str(file)])  # (colours, 1, y, x)

    told, ours = read(file)

    assert CHANNELS[told.colour] == len(theirs)
    if told.colour != "palette":
        np.testing.assert_array_equal(ours.T[None] if ours.ndim == 2 else ours.transpose(2, 0, 1), theirs[:, 0])

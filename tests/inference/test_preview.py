from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from umamba_seg.errors import DataError, UsageError
from umamba_seg.inference import preview
from umamba_seg.inference.preview import CT_WINDOW, PALETTE, overlay, pick_slices

SPACING = (3.0, 1.0, 1.0)


def scan(shape: tuple[int, ...] = (8, 40, 40)) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)


def squares(classes: int, shape: tuple[int, ...] = (8, 40, 40)) -> np.ndarray:
    """Classes 1 to `classes` side by side along x, in all slices but the outer ones."""
    labels = np.zeros(shape, np.uint8)
    for label, columns in enumerate(np.array_split(np.arange(2, shape[-1] - 2), classes), start=1):
        labels[1:-1, 10:30, columns] = label
    return labels


def pixels(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return imread(path)[..., :3]


def shows(picture: np.ndarray, colour: str) -> bool:
    """Whether a contour of this colour is drawn: 20 pixels of the pure colour."""
    return (np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.02).sum() > 20


def panel(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of what is not white in a picture of one black image."""
    dark = picture.max(axis=-1) < 0.5
    return int(np.ptp(np.flatnonzero(dark.any(axis=1)))) + 1, int(np.ptp(np.flatnonzero(dark.any(axis=0)))) + 1


def test_an_overlay_is_a_png_of_sensible_size(tmp_path):
    path = overlay(scan(), squares(3), SPACING, tmp_path / "new" / "case.png", title="Case 1", label_names={1: "liver"})

    height, width, _ = pixels(path).shape
    assert path == tmp_path / "new" / "case.png"
    assert 400 < height < 1000
    assert 2.2 < width / height < 3.2
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize(("spacing", "proportion"), [((1, 1, 1), 1.0), ((1, 2, 1), 2.0), ((9, 1, 4), 0.25)])
def test_proportions_follow_the_spacing(spacing, proportion, tmp_path):
    image = np.zeros((1, 40, 40), np.float32)

    height, width = panel(pixels(overlay(image, None, spacing, tmp_path / "a.png", window=(0, 1))))

    assert height / width == pytest.approx(proportion, rel=0.03)


@pytest.mark.parametrize("classes", [1, 5, len(PALETTE)])
def test_every_class_has_its_colour(classes, tmp_path):
    picture = pixels(overlay(scan(), squares(classes), SPACING, tmp_path / "a.png"))

    assert [shows(picture, colour) for colour in PALETTE] == [place < classes for place in range(len(PALETTE))]


def test_a_class_keeps_its_colour_when_others_are_missing(tmp_path):
    labels = np.where(squares(1) > 0, 3, 0)

    picture = pixels(overlay(scan(), labels, SPACING, tmp_path / "a.png"))

    assert [shows(picture, colour) for colour in PALETTE[:4]] == [False, False, True, False]


def test_more_classes_than_colours_are_drawn(tmp_path):
    picture = pixels(overlay(scan(), squares(18), SPACING, tmp_path / "a.png"))

    assert all(shows(picture, colour) for colour in PALETTE)


def test_a_reference_gets_a_row_of_its_own(tmp_path):
    alone = pixels(overlay(scan(), squares(1), SPACING, tmp_path / "a.png"))
    both = pixels(overlay(scan(), squares(1), SPACING, tmp_path / "b.png", reference=squares(2)))

    assert both.shape[0] > 1.6 * alone.shape[0]
    assert not shows(alone, PALETTE[1])
    assert shows(both[both.shape[0] // 2 :], PALETTE[1])
    assert not shows(both[: both.shape[0] // 2], PALETTE[1])


@pytest.mark.parametrize("labels", [None, np.zeros((8, 40, 40), np.uint8)], ids=["absent", "empty"])
@pytest.mark.parametrize("reference", [None, squares(2)], ids=["alone", "reference"])
def test_absent_and_empty_labels_leave_the_image(labels, reference, tmp_path):
    picture = pixels(overlay(scan(), labels, SPACING, tmp_path / "a.png", reference=reference))

    assert shows(picture, PALETTE[0]) == (reference is not None)


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (999.0, 0.5, 0.5)])
def test_two_dimensional_images_have_one_panel(spacing, tmp_path):
    labels = squares(2)[1]

    picture = pixels(overlay(scan((40, 40)), labels, spacing, tmp_path / "a.png", reference=labels, slices=5))

    assert picture.shape[0] > picture.shape[1]
    assert shows(picture, PALETTE[1])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 9, 9)),
        np.full((3, 9, 9), np.nan),
        np.ones((3, 1, 1)),
        np.ones((2, 1, 30)),
        np.ones((4, 90, 2), bool),
    ],
    ids=["zeros", "nan", "one voxel", "line", "bool"],
)
def test_odd_images_are_drawn_without_a_warning(image, tmp_path):
    labels = np.ones(image.shape, bool)

    assert pixels(overlay(image, labels, SPACING, tmp_path / "a.png", reference=labels)).size


def test_the_window_sets_black_and_white(tmp_path):
    image = np.full((1, 40, 40), 240.0)
    image[:, :, :20] = -160

    picture = pixels(overlay(image, None, SPACING, tmp_path / "a.png", window=CT_WINDOW))

    row = picture[picture.shape[0] // 2, :, 0]
    assert row.min() == 0
    assert row[len(row) * 3 // 4] == 1


def test_signs_of_formulas_in_names_are_plain_text(tmp_path):
    assert overlay(scan(), squares(1), SPACING, tmp_path / "a.png", title="a $ b_{ $", label_names={1: "$x_$"}).exists()


def test_the_same_input_gives_the_same_file(tmp_path):
    first, second = (overlay(scan(), squares(2), SPACING, tmp_path / name) for name in ("a.png", "b.png"))

    assert first.read_bytes() == second.read_bytes()


def test_pyplot_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    overlay(scan(), squares(1), SPACING, tmp_path / "a.png")

    assert not plt.get_fignums()


def test_a_failed_write_leaves_the_old_picture_and_nothing_beside(tmp_path, monkeypatch):
    path = overlay(scan(), squares(1), SPACING, tmp_path / "a.png")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(preview.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        overlay(scan(), squares(3), SPACING, path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": np.zeros((2, 3, 4, 5))}, DataError, r"needs an image \(z, y, x\) or \(y, x\)"),
        ({"image": np.zeros((0, 3, 4))}, DataError, "needs an image"),
        ({"labels": np.zeros((8, 40, 41))}, DataError, "labels must have the shape of the image"),
        ({"labels": np.full((8, 40, 40), 0.5)}, DataError, "labels must be whole numbers from 0"),
        ({"labels": np.full((8, 40, 40), np.nan)}, DataError, "labels must be whole numbers from 0"),
        ({"reference": np.full((8, 40, 40), -1)}, DataError, "reference must be whole numbers from 0"),
        ({"spacing": (1, 1)}, DataError, "spacing must be 3 positive values"),
        ({"spacing": (1, 1, 0)}, DataError, "spacing must be 3 positive values"),
        ({"window": (5, 5)}, UsageError, "window must be a lower and a higher value"),
        ({"slices": 0}, UsageError, "slices must be at least 1"),
        ({"path": "a.jpg"}, UsageError, "written as .png"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message, tmp_path):
    options = {"image": scan(), "labels": squares(1), "spacing": SPACING, "path": "a.png"} | changes

    with pytest.raises(error, match=message):
        overlay(**options | {"path": tmp_path / options["path"]})
    assert not list(tmp_path.iterdir())


def test_slices_with_most_foreground_are_picked_and_spread_out():
    labels = np.zeros((30, 10, 10), int)
    labels[5:25, 2:8, 2:8] = 1
    labels[14, :, :] = 1

    picked = pick_slices(labels, 3)

    assert 14 in picked
    assert set(picked) <= set(range(5, 25))
    assert min(np.diff(picked)) >= 4


def test_slices_of_one_kind_are_spread_out():
    assert pick_slices(squares(2), 3) == [1, 3, 5]


def test_a_small_class_is_not_passed_over_for_a_large_one():
    labels = np.zeros((30, 10, 10), int)
    labels[2:28] = 1
    labels[26, 4:6, 4:6] = 2

    assert 26 in pick_slices(labels, 2)


@pytest.mark.parametrize(
    ("depth", "count", "expected"), [(10, 2, [2, 7]), (9, 3, [1, 4, 7]), (2, 5, [0, 1]), (1, 3, [0])]
)
def test_slices_of_an_empty_map_are_spread_evenly(depth, count, expected):
    assert pick_slices(np.zeros((depth, 4, 4), int), count) == expected


def test_no_more_slices_are_picked_than_show_something():
    labels = np.zeros((9, 4, 4), int)
    labels[3:5] = 1

    assert pick_slices(labels, 5) == [3, 4]


@pytest.mark.parametrize(
    ("direction", "ends"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS"),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "RAS"),
        ((0, 0, 1, 1, 0, 0, 0, -1, 0), "PIL"),
        ((0.9, 0.44, 0, -0.44, 0.9, 0, 0, 0, -1), "LPI"),
        ((1, 0, 0, -1), "LA"),
    ],
)
def test_axes_lead_where_direction_cosines_say(direction, ends):
    assert preview.axis_ends(direction) == ends


def test_the_ends_of_axes_are_written_at_the_edges(tmp_path):
    black = np.zeros((4, 60, 60), np.float32)
    plain = pixels(overlay(black, None, SPACING, tmp_path / "a.png", slices=1, window=(0, 1)))
    told = pixels(overlay(black, None, SPACING, tmp_path / "b.png", slices=1, window=(0, 1), ends="LPS"))

    rows, columns = np.nonzero((told.min(-1) > 0.9) & (plain.min(-1) < 0.5))

    height, width = told.shape[:2]
    assert plain.shape == told.shape
    for y, x in ((0.5, 0.05), (0.5, 0.95), (0.08, 0.5), (0.92, 0.5)):
        assert ((abs(rows / height - y) < 0.12) & (abs(columns / width - x) < 0.12)).any(), (y, x)
    assert not ((abs(rows / height - 0.5) < 0.2) & (abs(columns / width - 0.5) < 0.2)).any()


def test_the_command_draws_each_case_once(umamba):
    import SimpleITK

    for name, array in (("scan", scan()), ("seg", squares(2))):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(SPACING[::-1])
        SimpleITK.WriteImage(image, str(umamba.folder / f"{name}.nii.gz"))
    command = ("preview", "seg.nii.gz", "-i", "scan.nii.gz", "-o", "pictures", "--window", "0:200")

    answer = umamba(*command)

    assert answer.code == 0, answer.err
    assert shows(pixels(umamba.folder / "pictures/seg.png"), PALETTE[0])
    assert umamba(*command).code == 2
    assert umamba(*command, "--overwrite").code == 0
    assert umamba(*command[:-1], "white", "--overwrite").code == 2

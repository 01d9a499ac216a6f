"""Pictures whose colours say nothing are stored plainly; those that mean something are left."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.datasets.check.test_pictures import colours, data_set, image, label, mask, palette, pixels, volumes
from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.fix.run import Fixed, fix


def mend(raw: Path, *apply: str) -> tuple[Path, Fixed]:
    target = raw.with_name("Dataset107_Cells")
    return target, fix(raw, target, check, apply=apply)


def opaque(array: np.ndarray, alpha: int = 255) -> np.ndarray:
    colours = array if array.ndim == 3 else array[..., None]
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), alpha, np.uint8)], -1)


@pytest.mark.parametrize(
    "picture",
    [palette(mask(2)), Image.fromarray(np.stack([mask(2)] * 3, -1)), Image.fromarray(opaque(mask(2)))],
    ids=["palette", "three equal colours", "opaque"],
)
def test_a_label_becomes_grey(tmp_path, picture):
    raw = data_set(tmp_path)
    picture.save(label(raw))

    target, done = mend(raw)

    assert done.report.findings == ()
    np.testing.assert_array_equal(np.asarray(Image.open(label(target))), mask(2))


def test_full_opacity_of_an_image_goes_but_what_lets_through_stays(tmp_path):
    raw = data_set(tmp_path, channels=3)
    Image.fromarray(opaque(colours(2))).save(image(raw))
    Image.fromarray(opaque(colours(1), alpha=200)).save(raw / "imagesTr/b_0000.png")

    target, done = mend(raw)

    np.testing.assert_array_equal(np.asarray(Image.open(image(target))), colours(2))
    assert [(x.code, x.cases) for x in done.report.findings] == [("png-mode", ("b",))]


def test_16_bits_are_8_again_when_that_is_asked_for(tmp_path):
    raw = data_set(tmp_path)
    Image.fromarray(mask(2).astype(np.uint16) * 257).save(label(raw))
    assert not mend(raw)[1].is_made

    target, done = mend(raw, "png-mode:divide")

    assert done.report.findings == ()
    np.testing.assert_array_equal(np.asarray(Image.open(label(target))), mask(2))


def test_volumes_get_the_spacing_that_is_given_or_that_of_their_image(tmp_path):
    raw = volumes(tmp_path)
    (raw / "labelsTr/c.json").unlink()
    (raw / "labelsTr/d.json").write_text('{"spacing": [1.0, 1.0, 1.0]}')

    _, done = mend(raw, "tiff-spacing:3,1,1", "spacing-mismatch")

    assert done.report.findings == ()
    assert not (raw / "labelsTr/c.json").exists()


def test_one_bmp_among_png_is_stored_as_png_and_values_of_tiff_volumes_are_mapped(tmp_path):
    raw = data_set(tmp_path)
    image(raw).unlink()
    Image.fromarray(pixels(2)).save(raw / "imagesTr/c_0000.bmp")
    target, done = mend(raw)
    assert done.report.findings == ()
    np.testing.assert_array_equal(np.asarray(Image.open(image(target))), pixels(2))

    raw = volumes(tmp_path)
    tifffile.imwrite(raw / "labelsTr/c.tif", np.stack([mask(2) * 127 + (mask(2) == 2)] * 6))
    other = tmp_path / "Dataset108_Stacks2"
    done = fix(raw, other, check, apply=["label-undeclared:127=1", "label-undeclared:255=2"])
    assert done.report.findings == ()
    np.testing.assert_array_equal(tifffile.imread(other / "labelsTr/c.tif"), np.stack([mask(2)] * 6))

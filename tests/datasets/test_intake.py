"""Files from elsewhere become a data set, or it is said why not."""

import json
from pathlib import Path

import pytest

from umamba_seg.datasets.intake import build, describe, pair
from umamba_seg.errors import DataError, UsageError


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_equal_names_belong_together(tmp_path):
    images = put(tmp_path / "images", "a.nii.gz", "b.nii.gz", ".hidden.nii.gz", "notes.txt")
    labels = put(tmp_path / "labels", "a.nii.gz", "b.nii.gz")

    pairs = pair(images, labels)

    assert list(pairs.images) == ["a", "b"]
    assert pairs.ending == ".nii.gz"


def test_channels_are_numbered_as_nnunet_does_or_by_a_pattern(tmp_path):
    images = put(tmp_path / "images", "a_0000.mha", "a_0001.mha")
    labels = put(tmp_path / "labels", "a.mha")
    assert [x.name for x in pair(images, labels, channels=2).images["a"]] == ["a_0000.mha", "a_0001.mha"]

    images = put(tmp_path / "other", "p1-T2-1.mha", "p1-T1-0.mha")
    labels = put(tmp_path / "masks", "p1-seg.mha")
    pairs = pair(images, labels, channels=2, pattern=r"(p\d+)-(?:T\d-(\d)|seg)")
    assert [x.name for x in pairs.images["p1"]] == ["p1-T1-0.mha", "p1-T2-1.mha"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["liver_1.nii"], ["liver-1.nii"], "first liver_1; the nearest is liver-1.nii"),
        (["a.nii"], ["a.nii", "b.nii"], "1 labels have no image, first b"),
        (["a.nii", "b.nii.gz"], ["a.nii"], "end in .nii and .nii.gz"),
        (["a.txt"], ["b.txt"], "no file ends in"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, images, labels, message):
    with pytest.raises(DataError, match=message):
        pair(put(tmp_path / "i", *images), put(tmp_path / "l", *labels))


def test_a_missing_channel_is_told(tmp_path):
    images, labels = (
        put(tmp_path / "i", "a_0000.nii", "b_0000.nii", "b_0001.nii"),
        put(tmp_path / "l", "a.nii", "b.nii"),
    )

    with pytest.raises(DataError, match=r"case a has channels \[0\], not 0 to 1"):
        pair(images, labels, channels=2)


@pytest.mark.parametrize("links", [False, True])
def test_the_data_set_is_complete_and_the_sources_stay(tmp_path, links):
    pairs = pair(put(tmp_path / "i", "a.nii", "b.nii"), put(tmp_path / "l", "a.nii", "b.nii"))
    target = tmp_path / "raw/Dataset012_X"

    build(target, pairs, describe(pairs, ["CT"], {"liver": 1}), links=links)

    assert sorted(x.name for x in (target / "imagesTr").iterdir()) == ["a_0000.nii", "b_0000.nii"]
    assert (target / "labelsTr/a.nii").read_bytes() == b"a.nii"
    assert (target / "labelsTr/a.nii").is_symlink() == links
    content = json.loads((target / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1}
    assert content["numTraining"] == 2
    assert not list(target.parent.glob(".*"))
    with pytest.raises(UsageError, match="is there"):
        build(target, pairs, {})


def test_the_spacing_beside_tiff_volumes_comes_along(tmp_path):
    images = put(tmp_path / "scans", "a_0000.tif", "a_0001.tif", "a.json")
    labels = put(tmp_path / "masks", "a.tif", "a.json")
    pairs = pair(images, labels, channels=2)

    build(tmp_path / "raw/Dataset012_X", pairs, {})

    made = tmp_path / "raw/Dataset012_X"
    assert sorted(x.name for x in (made / "imagesTr").iterdir()) == ["a.json", "a_0000.tif", "a_0001.tif"]
    assert sorted(x.name for x in (made / "labelsTr").iterdir()) == ["a.json", "a.tif"]


def test_a_stop_in_the_midst_leaves_nothing(tmp_path):
    pairs = pair(put(tmp_path / "i", "a.nii", "b.nii"), put(tmp_path / "l", "a.nii", "b.nii"))

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "raw/Dataset012_X", pairs, {}, report=stop)

    assert not list((tmp_path / "raw").iterdir())

"""`umamba ensemble` and `umamba postprocess` on probabilities and label maps made here."""

import json
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.helpers import Umamba, mends

SHAPE = (6, 8, 10)  # z, y, x
GEOMETRY = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
PLANS = {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager", "dataset_name": "Dataset900_Phantoms"}
DATASET = {
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "file_ending": ".nii.gz",
    "channel_names": {"0": "CT"},
}
STEP = "remove_all_but_largest_component_from_segmentation"


def random_probabilities(seed: int) -> np.ndarray:
    raw = np.random.default_rng(seed).random((3, *SHAPE), np.float32)
    return raw / raw.sum(0)


def write_probabilities(folder: Path, case: str, probabilities: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": GEOMETRY, "spacing": [1.0, 1.0, 1.0]}))


def labels_of(file: Path) -> np.ndarray:
    """(z, y, x)."""
    return np.asarray(nibabel.load(file).dataobj).T


@pytest.fixture
def predicted(umamba: Umamba) -> Umamba:
    """Probabilities of three models `a`, `b` and `c` for two cases, and a model folder."""
    for number, name in enumerate("abc"):
        for case in (0, 1):
            write_probabilities(umamba.folder / name, f"case_{case}", random_probabilities(10 * number + case))
    model = umamba.folder / "model"
    model.mkdir()
    (model / "plans.json").write_text(json.dumps(PLANS))
    (model / "dataset.json").write_text(json.dumps(DATASET))
    return umamba


def test_the_ensemble_is_the_class_of_the_greatest_mean(predicted):
    answer = predicted("ensemble", "a", "b", "c", "-o", "out", "--model", "model", "-j", 1, "--json")

    assert answer.code == 0, answer.err
    assert answer.document()["files"] == ["out/case_0.nii.gz", "out/case_1.nii.gz"]
    for case in (0, 1):
        mean = sum(random_probabilities(seed + case).astype(float) for seed in (0, 10, 20)) / 3
        np.testing.assert_array_equal(labels_of(predicted.folder / f"out/case_{case}.nii.gz"), mean.argmax(0))
    assert {path.name for path in (predicted.folder / "out").iterdir()} == {
        "case_0.nii.gz",
        "case_1.nii.gz",
        "umamba_run.json",
    }


@pytest.mark.slow
def test_label_maps_are_replaced_only_when_asked_for(predicted):
    for name in ("plans.json", "dataset.json"):
        (predicted.folder / "model" / name).rename(predicted.folder / "a" / name)  # as stock nnU-Net leaves them
    command = ("ensemble", "a", "b", "-o", "out", "--save-probabilities", "-j", 1)
    assert predicted(*command).code == 0
    assert (predicted.folder / "out/case_1.npz").is_file()

    assert "--overwrite" in mends(predicted(*command), code=2)
    assert predicted(*command, "--overwrite").code == 0


def test_what_an_ensemble_lacks_is_told(predicted):
    assert predicted("ensemble", "a", "-o", "out", "--model", "model").code == 2
    assert "--model" in mends(predicted("ensemble", "a", "b", "-o", "out"), code=2)

    (predicted.folder / "a/case_1.pkl").unlink()
    told = mends(predicted("ensemble", "a", "b", "-o", "out", "--model", "model"), code=3)
    assert "the first is case_1.pkl" in told
    (predicted.folder / "b/case_0.npz").unlink()
    told = mends(predicted("ensemble", "c", "b", "-o", "out", "--model", "model"), code=3)
    assert "the first is case_0.npz" in told
    assert "--save-probabilities" in told
    assert not (predicted.folder / "out").exists()


def test_probabilities_that_do_not_fit_or_cannot_be_read_are_told(predicted):
    write_probabilities(predicted.folder / "b", "case_1", random_probabilities(0)[:2])
    told = mends(predicted("ensemble", "a", "b", "-o", "out", "--model", "model"), code=3)
    assert "case_1 differ in classes or size" in told
    assert "3×6×8×10 and 2×6×8×10" in told

    file = predicted.folder / "c/case_0.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be read" in mends(predicted("ensemble", "a", "c", "-o", "out", "--model", "model"), code=3)


@pytest.fixture
def pieces(umamba: Umamba) -> Umamba:
    """A label map with two pieces of each class, and a folder of what helps: the largest of the liver."""
    array = np.zeros(SHAPE[::-1], np.uint8)
    array[:4, :4, :2], array[6:8, 6:8, 4:], array[0, 7, 5], array[9, :4, 0] = 1, 1, 2, 2
    for name in ("raw", "found"):
        (umamba.folder / name).mkdir()
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), umamba.folder / "raw/case.nii.gz")
    (umamba.folder / "found/plans.json").write_text(json.dumps(PLANS))
    (umamba.folder / "found/dataset.json").write_text(json.dumps(DATASET))
    write_steps(umamba, [STEP], [{"labels_or_regions": 1}])
    return umamba


def write_steps(umamba: Umamba, names: list[str], options: list[dict[str, object]]) -> None:
    content = {"postprocessing_fns": names, "postprocessing_kwargs": options}
    (umamba.folder / "found/postprocessing.json").write_text(json.dumps(content))


def test_only_the_largest_piece_of_the_class_is_kept(pieces):
    before = labels_of(pieces.folder / "raw/case.nii.gz")

    answer = pieces("postprocess", "raw", "-o", "out", "--from", "found", "-j", 1)

    assert answer.code == 0, answer.err
    assert answer.out.split() == ["out/case.nii.gz"]
    expected = before.copy()
    expected[4:, 6:8, 6:8] = 0
    np.testing.assert_array_equal(labels_of(pieces.folder / "out/case.nii.gz"), expected)
    again = pieces("postprocess", "raw", "-o", "out", "--from", "found/postprocessing.pkl")
    assert "--overwrite" in mends(again, code=2)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [[1, 2], [[1, 2]]])
def test_regions_are_joined_before_pieces_are_counted(whole, pieces):
    write_steps(pieces, [STEP], [{"labels_or_regions": whole}])

    assert pieces("postprocess", "raw", "-o", "out", "--from", "found", "-j", 1).code == 0

    after = labels_of(pieces.folder / "out/case.nii.gz")
    assert np.unique(after).tolist() == [0, 1]
    assert np.count_nonzero(after) == 4 * 4 * 2


@pytest.mark.slow
def test_no_step_leaves_label_maps_as_they_are(pieces):
    write_steps(pieces, [], [])

    assert pieces("postprocess", "raw", "-o", "out", "--from", "found", "-j", 1).code == 0

    files = [pieces.folder / folder / "case.nii.gz" for folder in ("raw", "out")]
    np.testing.assert_array_equal(labels_of(files[0]), labels_of(files[1]))


def test_what_postprocessing_lacks_is_told(pieces):
    (pieces.folder / "empty").mkdir()
    assert "umamba select" in mends(pieces("postprocess", "raw", "-o", "out", "--from", "empty"), code=7)
    assert pieces("postprocess", "empty", "-o", "out", "--from", "found").code == 3
    assert "another folder" in mends(pieces("postprocess", "raw", "-o", "raw", "--from", "found"), code=2)
    write_steps(pieces, ["os.system"], [{"command": "true"}])
    assert "no postprocessing 'os.system'" in mends(pieces("postprocess", "raw", "-o", "o", "--from", "found"), code=7)


def test_a_label_map_that_cannot_be_read_is_told(pieces):
    file = pieces.folder / "raw/other.nii.gz"
    file.write_bytes(b"nothing")

    answer = pieces("postprocess", "raw", "-o", "out", "--from", "found", "-j", 1)

    assert "cannot be read" in mends(answer, code=3)
    assert not list((pieces.folder / "out").glob("*.nii.gz"))

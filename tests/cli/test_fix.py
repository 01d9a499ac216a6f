"""`umamba fix` as programs and people see it."""

import json

import pytest

from tests.helpers import DATASET, mends
from umamba_seg.datasets.phantoms import write_dataset


@pytest.fixture
def broken(umamba):
    """Phantoms with a fault that is safe to mend, and one that is a choice."""
    raw = write_dataset(umamba.folder / "umamba_workspace/nnUNet_raw", cases=5, shape=(16, 24, 24))
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | {"numTraining": 9}))
    label = sorted((raw / "labelsTr").iterdir())[0]
    label.with_name("orphan.nii.gz").write_bytes(label.read_bytes())
    return umamba, raw


def test_the_copy_is_mended_and_the_rest_is_listed(broken):
    umamba, raw = broken
    before = (raw / "dataset.json").read_bytes()

    answer = umamba("fix", 900, "--out", 112, "--json")

    assert answer.code == 0, answer.out + answer.err
    document = answer.document()
    assert document["out"] == "Dataset112_Phantoms"
    assert [change["code"] for change in document["changes"]] == ["json-count"]
    assert [finding["code"] for finding in document["findings"]] == ["label-orphan"]
    assert (raw / "dataset.json").read_bytes() == before
    assert umamba("check", 112, "--strict").code == 3
    asked = umamba("fix", "Phantoms", "--out", "Dataset113_Better", "--apply", "label-orphan", "--copy")
    assert asked.code == 0, asked.err
    assert "label-orphan:leave-out" in asked.out
    assert umamba("check", 113, "--strict").code == 0


def test_a_dry_run_tells_and_writes_nothing(broken):
    umamba, raw = broken

    answer = umamba("fix", 900, "--out", 112, "--dry-run")

    assert answer.code == 3  # as long as it is not mended
    assert "numTraining is 5, not 9" in answer.out
    assert [path.name for path in raw.parent.iterdir()] == [DATASET]


def test_a_data_set_that_lies_elsewhere_may_be_mended_into_the_workspace(broken):
    umamba, raw = broken
    elsewhere = raw.rename(umamba.folder / "some scans")

    answer = umamba("fix", elsewhere, "--out", 7)

    assert answer.code == 0, answer.out + answer.err
    assert (raw.parent / "Dataset007_some_scans/imagesTr").is_dir()
    assert umamba("check", elsewhere).code == 3


def test_wrong_words_are_told_with_what_would_be_right(broken):
    umamba, _ = broken

    assert "taken by Dataset900_Phantoms" in mends(umamba("fix", 900, "--out", 900), code=2)
    assert "needs an id or a name" in mends(umamba("fix", 900, "--out", "x/y"), code=2)
    assert "--apply origin-mismatch:resample" in mends(
        umamba("fix", 900, "--out", 112, "--apply", "origin-mismatch"), code=2
    )


def test_the_check_says_what_can_be_mended(broken):
    umamba, _ = broken

    last = umamba("check", 900).out.splitlines()[-1]
    fixes = [finding["fix"] for finding in umamba("check", 900, "--json").document()["findings"]]

    assert last.endswith("mend: umamba fix 900 --out ID (1 safe change, 1 needs your word)")
    assert fixes[0] == {"safe": True, "action": "correct", "command": "umamba fix 900 --out ID"}
    assert fixes[1]["command"] == "umamba fix 900 --out ID --apply label-orphan:leave-out"

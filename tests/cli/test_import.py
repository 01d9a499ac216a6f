import json

import pytest

from tests.helpers import DATASET, mends
from umamba_seg.cli.import_data import _channels, _labels
from umamba_seg.datasets.phantoms import write_dataset
from umamba_seg.errors import UsageError


@pytest.fixture
def elsewhere(umamba):
    made = write_dataset(umamba.folder / "elsewhere", cases=5, shape=(16, 24, 24))
    return umamba, made / "imagesTr", made / "labelsTr", json.loads((made / "dataset.json").read_text())


def test_a_folder_becomes_a_data_set_that_passes_the_check(elsewhere):
    umamba, images, labels, description = elsewhere
    names = [f"--label={name}={value}" for name, value in description["labels"].items() if value]

    answer = umamba(
        "import", "folder", images, labels, "--id", 12, "--name", "X", "--channel", "0=CT", *names, "--json"
    )

    assert answer.code == 0, answer.out + answer.err
    document = answer.document()
    assert (document["dataset"], len(document["cases"]), document["findings"]) == ("Dataset012_X", 5, [])
    raw = umamba.folder / "umamba_workspace/nnUNet_raw/Dataset012_X"
    assert json.loads((raw / "dataset.json").read_text())["labels"] == description["labels"]
    again = umamba("import", "folder", images, labels, "--id", 12, "--name", "Y", *names)
    assert "taken by Dataset012_X" in mends(again, code=2)
    assert umamba("check", 12).code == 0


def test_labels_that_are_not_declared_are_found_at_once(elsewhere):
    umamba, images, labels, _ = elsewhere

    answer = umamba(
        "import", "folder", images, labels, "--id", 12, "--name", "X", "--channel", "0=CT", "--label", "a=1"
    )

    assert answer.code == 3
    assert "label-undeclared" in answer.out
    assert DATASET not in answer.out


def test_regions_are_written_with_a_value_of_their_own():
    labels, order = _labels(["whole=1,2,3", "core=2,3", "enhancing=3"])

    assert labels == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    assert order == [1, 2, 3]
    assert _labels(["liver=1", "ignore=2"]) == ({"liver": 1, "ignore": 2}, None)


@pytest.mark.parametrize("words", [["CT"], ["x=CT"], ["1=CT"], ["0="]])
def test_odd_channels_are_refused(words):
    with pytest.raises(UsageError):
        _channels(words)


@pytest.mark.parametrize("words", [["liver"], ["liver=x"], ["=1"], ["liver=1,"]])
def test_odd_labels_are_refused(words):
    with pytest.raises(UsageError):
        _labels(words)

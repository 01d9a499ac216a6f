import json
import shutil
import zipfile

import pytest

from tests.datasets.test_decathlon import make_task
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


def test_images_with_a_fourth_axis_are_split(umamba):
    made = make_task(umamba.folder, 2)
    for hidden in (made / "imagesTr").glob("._*"):
        hidden.unlink()
    options = ("--id", 7, "--name", "P", "--channel", "0=T2", "--channel", "1=ADC", "--label=a=1", "--label=b=2")

    answer = umamba("import", "folder", made / "imagesTr", made / "labelsTr", *options, "--split-4d")

    assert answer.code == 0, answer.out + answer.err
    assert len(list((umamba.folder / "umamba_workspace/nnUNet_raw/Dataset007_P/imagesTr").iterdir())) == 10


def test_a_task_of_the_decathlon_keeps_its_number_and_name_or_gets_others(umamba):
    task = make_task(umamba.folder, 2)

    assert "would make" in umamba("import", "decathlon", task, "--dry-run").out
    answer = umamba("import", "decathlon", task, "--json")

    assert answer.code == 0, answer.out + answer.err
    document = answer.document()
    assert (document["dataset"], len(document["cases"]), document["findings"]) == ("Dataset005_Prostate", 5, [])
    assert "taken by Dataset005_Prostate" in mends(umamba("import", "decathlon", task), code=2)
    renamed = umamba("import", "decathlon", task, "--id", 6, "--name", "X", "--channel", "0=a", "--channel", "1=b")
    assert renamed.code == 0, renamed.err
    raw = umamba.folder / "umamba_workspace/nnUNet_raw"
    assert json.loads((raw / "Dataset006_X/dataset.json").read_text())["channel_names"] == {"0": "a", "1": "b"}
    assert "no dataset.json" in mends(umamba("import", "decathlon", umamba.folder), code=3)


@pytest.mark.parametrize("is_task", [False, True], ids=["raw data set", "decathlon"])
def test_a_zip_becomes_a_data_set(umamba, is_task):
    made = make_task(umamba.folder, 2) if is_task else write_dataset(umamba.folder, cases=5, shape=(16, 24, 24))
    shutil.make_archive(str(umamba.folder / "data"), "zip", umamba.folder, made.name)

    dry = umamba("import", "zip", "data.zip", "--dry-run")
    assert (dry.code, "would make" in dry.out) == (0, True), dry.err
    answer = umamba("import", "zip", "data.zip", "--json")

    assert answer.code == 0, answer.out + answer.err
    document = answer.document()
    assert document["dataset"] == ("Dataset005_Prostate" if is_task else DATASET)
    assert len(document["cases"]) == 5
    raw = umamba.folder / "umamba_workspace/nnUNet_raw"
    assert [path.name for path in raw.iterdir()] == [document["dataset"]]
    assert "is taken" in mends(umamba("import", "zip", "data.zip"), code=2)
    assert umamba("import", "zip", "data.zip", "--id", 11, "--name", "Other").code == 0
    assert umamba("check", 11).code == 0


def test_a_zip_that_would_write_elsewhere_is_refused_with_a_sentence(umamba):
    with zipfile.ZipFile(umamba.folder / "x.zip", "w") as archive:
        archive.writestr("Dataset001_X/dataset.json", "{}")
        archive.writestr("../evil", "x")

    told = mends(umamba("import", "zip", "x.zip"), code=3)

    assert "'../evil' leads out of the zip; nothing was written" in told
    assert not (umamba.folder / "evil").exists()
    assert not (umamba.folder / "umamba_workspace").exists()

"""`umamba check` as programs and people see it."""

from tests.helpers import DATASET, Umamba
from umamba_seg.datasets.phantoms import write_dataset


def with_phantoms(umamba: Umamba) -> None:
    write_dataset(umamba.folder / "umamba_workspace/nnUNet_raw", cases=5, shape=(16, 24, 24))


def test_phantoms_are_clean(umamba):
    with_phantoms(umamba)

    answer = umamba("check", 900, "--json")

    assert answer.code == 0, answer.out
    document = answer.document()
    assert document["findings"] == []
    assert document["summary"] == {"error": 0, "warning": 0}
    assert document["dataset"]["cases"] == 5


def test_errors_make_the_exit_code_3_and_are_told_in_one_line_each(umamba):
    with_phantoms(umamba)
    raw = umamba.folder / "umamba_workspace/nnUNet_raw" / DATASET
    (first, *_) = sorted((raw / "labelsTr").iterdir())
    first.write_bytes(first.read_bytes()[:200])

    answer = umamba("check", 900)

    assert answer.code == 3
    assert "Traceback" not in answer.err
    (line,) = [line for line in answer.out.splitlines() if line.startswith("error")]
    assert "unreadable" in line
    assert first.name.split(".")[0] in line
    assert answer.out.splitlines()[-1].startswith("1 errors, 0 warnings")
    (finding,) = umamba("check", 900, "--json").document()["findings"]
    assert finding["code"] == "unreadable"
    assert finding["files"] == [f"labelsTr/{first.name}"]


def test_strict_counts_warnings_and_accept_sets_them_aside(umamba):
    with_phantoms(umamba)
    raw = umamba.folder / "umamba_workspace/nnUNet_raw" / DATASET
    (first, *_) = sorted((raw / "imagesTr").iterdir())
    case = first.name.split(".")[0].removesuffix("_0000")
    (raw / "labelsTr/orphan.nii.gz").write_bytes((raw / f"labelsTr/{case}.nii.gz").read_bytes())

    assert umamba("check", 900).code == 0
    assert umamba("check", 900, "--strict").code == 3
    assert umamba("check", 900, "--strict", "--accept", "label-orphan").code == 0
    assert umamba("check", 900, "--strict").code == 0
    assert umamba("check", 900, "--strict", "--skip", "label-orphan").code == 0


def test_an_unknown_data_set_is_a_usage_error(umamba):
    with_phantoms(umamba)

    assert umamba("check", 999).code == 2

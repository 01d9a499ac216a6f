"""`umamba check` as programs and people see it."""

from pathlib import Path

import SimpleITK

from tests.helpers import DATASET, Umamba, mends
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


def broken(umamba: Umamba) -> Path:
    """Phantoms: the first has no readable label, the second a label that is moved, the others are sound."""
    with_phantoms(umamba)
    raw = umamba.folder / "umamba_workspace/nnUNet_raw" / DATASET
    first, second, *_ = sorted((raw / "labelsTr").iterdir())
    first.write_bytes(first.read_bytes()[:200])
    label = SimpleITK.ReadImage(str(second))
    label.SetOrigin((100.0, 0.0, 0.0))
    SimpleITK.WriteImage(label, str(second))
    return raw


def test_findings_become_a_page_with_a_picture_of_each_case_that_can_be_read(umamba):
    raw = broken(umamba)
    unreadable, moved = [path.name.removesuffix(".nii.gz") for path in sorted((raw / "labelsTr").iterdir())[:2]]

    answer = umamba("check", 900, "--html", "out/findings.html", "--overlay", "pictures", "--json")

    assert answer.code == 3, answer.err
    assert [path.name for path in (umamba.folder / "pictures").iterdir()] == [f"{moved}.png"]
    assert answer.document()["pictures"] == [f"pictures/{moved}.png"]
    assert f"no picture of {unreadable}" in answer.err
    page = (umamba.folder / "out/findings.html").read_text()
    assert "origin-mismatch" in page
    assert "data:image/png;base64," in page
    assert str(umamba.folder) not in page
    assert "there" in mends(umamba("check", 900, "--html", "out/findings.html"), code=2)
    assert umamba("check", 900, "--html", "out/findings.html", "--overwrite").code == 3


def test_test_images_are_looked_at_too(umamba):
    with_phantoms(umamba)
    raw = umamba.folder / "umamba_workspace/nnUNet_raw" / DATASET
    scans = umamba.folder / "scans"
    scans.mkdir()
    (first, *_) = sorted((raw / "imagesTr").iterdir())
    (scans / "new_0000.nii.gz").write_bytes(first.read_bytes())

    answer = umamba("check", 900, "--test", scans, "--json")

    assert answer.code == 0
    assert [finding["code"] for finding in answer.document()["findings"]] == ["duplicate-image"]
    assert umamba("check", 900, "--test", "nowhere").code == 3


def test_a_data_set_that_lies_elsewhere_may_be_looked_at(umamba):
    with_phantoms(umamba)
    elsewhere = (umamba.folder / "umamba_workspace/nnUNet_raw" / DATASET).rename(umamba.folder / DATASET)

    assert umamba("check", elsewhere).code == 0

"""Data sets whose dataset.json names the files of each case."""

import json
import shutil
from pathlib import Path

import pytest

from tests.datasets.liver import CASES, DESCRIPTION, found
from umamba_seg.datasets.check.run import check


@pytest.fixture
def named(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clean data set with its files elsewhere: one kind relative, one through a variable."""
    shutil.move(raw / "imagesTr", raw / "scans")
    shutil.move(raw / "labelsTr", tmp_path / "masks")
    monkeypatch.setenv("WHERE_MASKS_ARE", str(tmp_path / "masks"))
    block = {
        case: {"images": [f"scans/{case}_0000.nii.gz"], "label": f"$WHERE_MASKS_ARE/{case}.nii.gz"} for case in CASES
    }
    (raw / "dataset.json").write_text(json.dumps(DESCRIPTION | {"dataset": block}))
    return raw


def test_files_are_looked_for_where_dataset_json_says(named):
    report = check(named)

    assert report.findings == ()
    assert report.cases == len(CASES)


def test_files_that_are_not_there_are_told_with_their_case(named):
    (named / "scans/case_3_0000.nii.gz").unlink()

    report = check(named)

    assert ("json-paths", "error", ("case_3",)) in found(report)
    (finding,) = [x for x in report.findings if x.code == "json-paths"]
    assert finding.found == ["scans/case_3_0000.nii.gz"]


@pytest.mark.parametrize("block", [[], {"case_3": "x.nii.gz"}, {"case_3": {"images": []}}])
def test_an_odd_block_is_told(named, block):
    (named / "dataset.json").write_text(json.dumps(DESCRIPTION | {"dataset": block}))

    assert "json-paths" in {code for code, *_ in found(check(named))}

"""The Python on the page about prediction runs as it stands."""

import re
import shutil

import pytest

from tests.helpers import ROOT
from tests.inference.stock import write_image
from umamba_seg.bench.made_up_model import MadeUp

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/inference.md").read_text(), re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_on_the_page_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.move(MadeUp(tile=(8, 8, 8)).write(tmp_path), tmp_path / "model")
    write_image(tmp_path / "scan.nii.gz", (9, 10, 11), (1.0, 1.0, 1.2))
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images/a_0000.nii.gz", (9, 10, 11), (1.0, 1.0, 1.2))

    exec(compile(BLOCKS[number], "inference.md", "exec"), {})


def test_there_is_python_to_run():
    assert len(BLOCKS) == 3

"""Type checks reach the folders that are installed under other names."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

SOURCES = ("umamba_seg", "kernels", "trainers", "datasets", "pyproject.toml", "Makefile")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mypy", path=Path(sys.executable).parent) is None, reason="needs the extra lint")
def test_a_type_error_planted_in_the_kernels_fails_the_check(tmp_path):
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    with (tmp_path / "kernels/dispatch.py").open("a") as file:
        file.write("\nPLANTED: int = 'text'\n")
    environment = Path(sys.executable).parent.parent
    command = ["make", "types", f"VENV={environment}", f"--assume-old={environment}/.lint"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "umamba_seg/kernels/dispatch.py" in done.stdout
    assert "Found 1 error" in done.stdout

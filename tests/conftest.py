"""Every test runs without the user's folders, settings and switches."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers import Umamba
from umamba_seg.datasets.phantoms import write_dataset


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("nnUNet_", "UMAMBA_")):
            monkeypatch.delenv(name)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))


@pytest.fixture
def umamba(tmp_path: Path) -> Umamba:
    """The command line, in a folder of its own and a process of its own."""
    return Umamba(tmp_path)


# narrow networks: torch is slow at small volumes with many channels
PLAN = """
from umamba_seg import plan
if __name__ == "__main__":
    for configuration, patch in (("3d_fullres", (16, 16, 16)), ("2d", (16, 16))):
        name = f"our{configuration[:2].upper()}Plans"
        settings = dict(configurations=[configuration], patch=patch, batch=2, features=4, plans_name=name, processes=1)
        plan("900", twin=True, **settings)
"""


@pytest.fixture(scope="session")
def phantoms_planned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with small phantoms, and 2D and 3D plans of U-Mamba Bot and its twin: our2DPlans, our3DPlans."""
    folder = tmp_path_factory.mktemp("planned")
    write_dataset(folder / "umamba_workspace/nnUNet_raw", cases=5, test_cases=1, shape=(16, 24, 24))
    answer = Umamba(folder).run(sys.executable, "-c", PLAN)
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture
def phantoms(phantoms_planned_once: Path, umamba: Umamba) -> Umamba:
    """The command line beside a copy of that workspace, with few workers; nnU-Net's three variables point into it."""
    workspace = umamba.folder / "umamba_workspace"
    shutil.copytree(phantoms_planned_once / "umamba_workspace", workspace)
    umamba.variables |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0"}
    umamba.variables["XDG_CACHE_HOME"] = str(phantoms_planned_once / "cache")  # kernels are compiled once
    umamba.variables |= {
        name: str(workspace / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    return umamba

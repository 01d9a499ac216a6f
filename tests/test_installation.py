"""The package as users install it: in another environment, away from the repository."""

import shutil
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT, Umamba

PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
SOURCES = ("umamba_seg", "kernels", "trainers", "datasets", "pyproject.toml", "README.md", "LICENSE")
IMPORT_ALL = f"""
from importlib import import_module
for name in {PACKAGES}:
    print(import_module(name).__file__)
"""


@pytest.fixture
def installed(request: pytest.FixtureRequest, umamba: Umamba) -> Umamba:
    """Programs of a fresh environment with this package, and the dependencies of that which runs the tests."""
    source, environment = umamba.folder / "source", umamba.folder / "environment"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    # paths of a .pth file bring packages, but not the .pth files beside them: an editable install there stays unseen
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install", "--quiet"]
    alone = ["--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*pip, *alone, *request.param, source], check=True)
    umamba.variables["PATH"] = f"{environment / 'bin'}:/usr/bin:/bin"
    return umamba


@pytest.mark.skipif(sys.platform == "win32", reason="looks for programs where POSIX systems put them")
@pytest.mark.parametrize("installed", [(), ("-e",)], ids=["wheel", "editable"], indirect=True)
def test_an_installed_package_imports_everything_and_runs_the_doctor(installed: Umamba):
    python = installed.folder / "environment/bin/python"
    imported = installed.run(python, "-c", IMPORT_ALL)
    assert imported.code == 0, imported.err
    assert all(Path(file).is_relative_to(installed.folder) for file in imported.out.split())
    doctor = installed.run(installed.folder / "environment/bin/umamba", "doctor", "--json")
    assert doctor.code == 0, doctor.err + doctor.out
    assert (installed.run(python, "-m", "umamba_seg.cli.main", "nnunet", "path").out.strip()).endswith("plugin")

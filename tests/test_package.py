import subprocess
import sys
import tomllib

from tests.helpers import ROOT


def modules_after(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_brings_the_standard_library_only():
    brought = modules_after("import umamba_seg") - modules_after("pass")
    allowed = sys.stdlib_module_names | {"umamba_seg"}
    assert {name.partition(".")[0] for name in brought} <= allowed


def test_help_imports_neither_torch_nor_nnunet():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "umamba_seg.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "nnunetv2", "numpy", "monai", "numba", "pydantic"}


def test_pyproject_lists_every_package():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = [
        path.parent
        for name in ("umamba_seg", "kernels", "trainers", "datasets")
        for path in (ROOT / name).rglob("__init__.py")
    ]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    installed = {name if name.startswith("umamba_seg") else f"umamba_seg.{name}" for name in names}
    assert listed == installed


def test_version_is_written_once():
    from umamba_seg import __version__

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__

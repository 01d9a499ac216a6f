"""One test per state: what the line says, and whether it makes the exit code 5."""

import re
import sys
from pathlib import Path

import pytest

from tests.helpers import Answer, Umamba
from tests.nnunet.test_torchvision_repair import broken  # noqa: F401  (a fixture)


def check(answer: Answer, name: str) -> dict[str, str]:
    return next(check for check in answer.document()["checks"] if check["name"] == name)


HIDE = """
import sys
from importlib import metadata
sys.modules[{name!r}] = None  # Python's own mark of a module that must not be found
find_version = metadata.version
def version(name):
    if name == {name!r}:
        raise metadata.PackageNotFoundError(name)
    return find_version(name)
metadata.version = version
"""


def hide(name: str, folder: Path) -> dict[str, str]:
    """Variables under which Python finds neither a package nor its metadata."""
    site = folder / "hidden"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDE.format(name=name))
    return {"PYTHONPATH": str(site)}


def test_a_mismatched_torchvision_is_repaired_and_does_not_fail(broken: Umamba):  # noqa: F811
    answer = broken("doctor", "--json")
    assert answer.code == 0, answer.err
    line = check(answer, "torchvision")
    assert line["state"] == "repaired"
    assert "same index as torch" in line["remedy"]


def test_with_the_repair_switched_off_it_is_broken(broken: Umamba):  # noqa: F811
    answer = broken("doctor", "--json", UMAMBA_NO_TORCHVISION_REPAIR="1")
    assert answer.code == 5
    line = check(answer, "torchvision")
    assert line["state"] == "broken"
    assert "nms does not exist" in line["found"]
    assert "UMAMBA_NO_TORCHVISION_REPAIR" in line["found"]


def test_without_numba_there_is_a_warning(umamba: Umamba, tmp_path):
    answer = umamba("doctor", "--json", **hide("numba", tmp_path))
    assert answer.code == 0, answer.err
    assert check(answer, "numba") == {
        "name": "numba",
        "state": "warning",
        "found": "not installed",
        "remedy": "pip install numba",
    }


def test_an_unwritable_workspace_is_broken(umamba: Umamba, tmp_path):
    (tmp_path / "file").touch()
    answer = umamba("doctor", "--json", "--workspace", tmp_path / "file" / "folder")
    assert answer.code == 5
    line = check(answer, "nnUNet_raw")
    assert line["state"] == "broken"
    assert "--workspace" in line["remedy"]


@pytest.mark.parametrize(
    ("version", "state"), [("2.8.0", "ok"), ("2.8.9", "ok"), ("2.9.0", "warning"), ("2.7.1", "warning")]
)
def test_an_untried_nnunet_is_a_warning(monkeypatch, version, state):
    from umamba_seg import doctor

    monkeypatch.setattr(doctor, "_version", lambda package: version)
    (line,) = doctor._nnunet()
    assert line.state == state


def test_the_doctor_names_backend_folders_trainers_and_disk(umamba: Umamba):
    answer = umamba("doctor", "--json")
    assert answer.code == 0, answer.out
    assert "numba backend" in check(answer, "kernels on cpu")["found"]
    assert "nnUNetTrainerUMambaEnc" in check(answer, "trainers")["found"]
    assert "GiB free" in check(answer, "nnUNet_results")["found"]


def test_the_doctor_says_whether_kernels_are_compiled_and_compiles_them(umamba: Umamba, tmp_path):
    folder = str(tmp_path / "kernels")

    before = check(umamba("doctor", "--json", UMAMBA_KERNEL_CACHE=folder), "compiled kernels")
    after = check(umamba("doctor", "--json", "--warm", UMAMBA_KERNEL_CACHE=folder), "compiled kernels")

    assert before["found"].startswith("not yet")
    assert "--warm" in before["remedy"]
    assert re.fullmatch(r"compiled in \d+\.\d s once, loaded in \d\.\d\d s, in .*", after["found"])


def test_an_opt_out_is_told(umamba: Umamba):
    answer = umamba("doctor", "--json", UMAMBA_NO_AUTOLOAD="1")
    assert answer.code == 0
    assert "UMAMBA_NO_AUTOLOAD" in check(answer, "stock commands")["found"]


def test_the_table_is_for_people_and_fits_no_json(umamba: Umamba):
    answer = umamba("doctor")
    assert answer.code == 0
    assert "nnunetv2" in answer.out
    assert not answer.out.startswith("{")


def test_the_version_line_names_what_decides_on_results(umamba: Umamba):
    answer = umamba.run(sys.executable, "-m", "umamba_seg.cli.main", "--version")
    assert all(word in answer.out for word in ("umamba 0.1.0", "nnunetv2 2.8", "torch", "backend auto"))
    assert len(answer.out.splitlines()) == 1

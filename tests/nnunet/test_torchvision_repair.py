"""A torchvision whose library does not load beside this torch is made from the installed one."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import Umamba

WITHOUT_TORCHVISION = """
import importlib.util as util
find_spec = util.find_spec
util.find_spec = lambda name, *rest: None if name == "torchvision" else find_spec(name, *rest)
"""
LOOK_UP = """
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
print(find("nnUNetTrainerNoMirroring").__name__)
"""
STATE = "import torch; from umamba_seg.nnunet.torchvision_repair import inspect, repair; "


@pytest.fixture
def broken(umamba: Umamba, tmp_path: Path) -> Umamba:
    """The installed torchvision, with a library that does not load."""
    (installed,) = find_spec("torchvision").submodule_search_locations
    folder = tmp_path / "site" / "torchvision"
    folder.mkdir(parents=True)
    for path in Path(installed).iterdir():
        if path.suffix != ".so":
            (folder / path.name).symlink_to(path)
    (folder / "_C.so").write_text("not a library")
    umamba.variables["PYTHONPATH"] = str(tmp_path / "site")
    return umamba


def test_the_stand_in_fails_as_the_real_one_does(broken):
    answer = broken.run(sys.executable, "-c", "import torchvision")
    assert "operator torchvision::nms does not exist" in answer.err


def test_a_broken_torchvision_is_repaired_for_the_process(broken):
    answer = broken.run(
        sys.executable,
        "-c",
        STATE + "print(inspect(), repair(), inspect()); import torchvision; print(torchvision.ops.nms.__name__)",
    )
    assert answer.out.split() == ["broken", "repaired", "repaired", "nms"], answer.err


def test_it_is_repaired_after_a_failed_import_too(broken):
    script = (
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        + STATE
        + "repair()\nimport torchvision\nprint(torchvision.ops.nms.__name__)"
    )
    answer = broken.run(sys.executable, "-c", script)
    assert answer.out.split() == ["nms"], answer.err


def test_the_repair_can_be_switched_off(broken):
    answer = broken.run(sys.executable, "-c", STATE + "print(repair())", UMAMBA_NO_TORCHVISION_REPAIR="1")
    assert answer.out.split() == ["broken"]


def test_without_torchvision_nothing_is_done(umamba):
    answer = umamba.run(sys.executable, "-c", WITHOUT_TORCHVISION + STATE + "print(repair())")
    assert answer.out.split() == ["absent"], answer.err


def test_a_healthy_torchvision_is_left_alone(umamba, tmp_path):
    folder = tmp_path / "site" / "torchvision"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("ops = True")
    answer = umamba.run(
        sys.executable,
        "-c",
        STATE + "print(repair()); import torchvision; print(inspect())",
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert answer.out.split() == ["healthy", "imported"], answer.err


def test_every_trainer_of_nnunet_is_found_beside_the_torchvision_that_is_installed(umamba, tmp_path):
    script = tmp_path / "nnUNetv2_anything.py"
    script.write_text(LOOK_UP)
    answer = umamba.run(sys.executable, script)
    assert answer.out.split() == ["nnUNetTrainerNoMirroring"], answer.err

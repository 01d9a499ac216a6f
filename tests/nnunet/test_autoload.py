import os
import sys

import pytest

from tests.helpers import Umamba
from umamba_seg import nnunet
from umamba_seg.nnunet import autoload

LOOK_UP = (
    "import torch, os\n"
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
    "print(find('nnUNetTrainerUMambaEnc').__module__)\n"
)


@pytest.mark.parametrize(
    ("program", "original", "expected"),
    [
        ("/usr/bin/nnUNetv2_train", [], True),
        ("C:\\Scripts\\nnUNetv2_predict.exe", [], True),
        ("/site-packages/nnunetv2/run/run_training.py", [], True),
        ("-m", ["python", "-m", "nnunetv2.run.run_training"], True),
        ("/usr/bin/jupyter", [], False),
        ("-m", ["python", "-m", "nnunetv2_tools"], False),
        ("", [], False),
        ("/opt/nnunetv2", [], True),
        ("/home/nnunetv2_user/script.py", [], False),
    ],
)
def test_programs_of_nnunet_are_recognised_and_others_left_alone(monkeypatch, program, original, expected):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", original)
    assert autoload.runs_nnunet() is expected


def test_an_embedded_python_without_arguments_is_survived(monkeypatch):
    monkeypatch.delattr(sys, "argv")
    monkeypatch.setattr(sys, "orig_argv", [])
    assert autoload.runs_nnunet() is False


def test_an_exception_inside_the_hook_never_leaves_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    monkeypatch.setattr(nnunet, "activate", lambda: 1 / 0)
    autoload.activate()


def test_the_plugin_folder_is_appended_once_and_others_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(nnunet.TRAINER_VARIABLE, str(tmp_path))
    nnunet.add_plugin_folder()
    nnunet.add_plugin_folder()
    assert os.environ[nnunet.TRAINER_VARIABLE].split(os.pathsep) == [str(tmp_path), str(nnunet.PLUGIN_FOLDER)]


def test_the_opt_out_leaves_the_variable_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    monkeypatch.setenv(nnunet.AUTOLOAD_OPT_OUT, "1")
    autoload.activate()
    assert nnunet.TRAINER_VARIABLE not in os.environ


def test_the_stock_search_finds_our_trainers_without_any_variable(umamba: Umamba, tmp_path):
    script = tmp_path / "nnUNetv2_anything.py"
    script.write_text(LOOK_UP)
    answer = umamba.run(sys.executable, script)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "umamba_seg.trainers.umamba"


def test_a_program_that_is_not_nnunets_gets_no_variable(umamba: Umamba, tmp_path):
    answer = umamba.run(sys.executable, "-c", "import torch, os; print(os.environ.get('nnUNet_extTrainer'))")
    assert answer.out.strip() == "None"


def test_the_plugin_needs_torch_and_nnunet_only(umamba: Umamba, tmp_path):
    """Another person's trainer must be found although ours cannot have its kernels."""
    script = tmp_path / "nnUNetv2_hidden.py"
    script.write_text("import sys\nfor name in ('triton', 'numba', 'monai'):\n    sys.modules[name] = None\n" + LOOK_UP)
    answer = umamba.run(sys.executable, script)
    assert answer.out.splitlines()[-1] == "umamba_seg.trainers.umamba", answer.err

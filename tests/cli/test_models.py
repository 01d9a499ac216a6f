import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from tests.helpers import mends
from tests.inference.models.test_store import DATASET, LABELS, NAME, PROVENANCE, Bomb, make_model, pack
from umamba_seg.inference.models import store


@pytest.fixture
def filled(umamba, monkeypatch):
    """The command line, with a model `mine` in its store."""
    monkeypatch.setenv("UMAMBA_MODELS", str(umamba.folder / "store"))
    store.install(make_model(umamba.folder / "results", umamba_seg=PROVENANCE), "mine")
    return umamba


def test_a_zip_of_nnunets_own_command_is_installed_listed_verified_and_removed(umamba):
    make_model(umamba.folder / "results", folds=(0, 1))
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    host = {name: str(umamba.folder / "results") for name in names}
    export = shutil.which("nnUNetv2_export_model_to_zip", path=os.path.dirname(sys.executable))
    answer = umamba.run(
        *(export, "-d", "4", "-o", "model.zip", "-c", "3d_fullres", "-p", "umambaBot8GPlans", "-f", "0", "1"), **host
    )
    assert answer.code == 0, answer.err

    answer = umamba("models", "install", "model.zip", "--json")

    assert answer.code == 0, answer.err + answer.out
    (model,) = answer.document()["models"]
    assert (model["name"], model["folds"], model["dataset"]) == (NAME, ["0", "1"], DATASET)
    listed = umamba("models", "list", "--json").document()
    assert listed["models"] == [model]
    assert listed["store"].endswith("umamba/models")
    assert umamba("models", "verify").out == f"{NAME}: ok\n"
    answer = umamba("models", "remove", NAME, "--yes", "--json").document()
    assert (answer["status"], answer["removed"]) == ("ok", True)
    assert umamba("models", "list", "--json").document()["models"] == []


def test_info_shows_what_a_user_must_know(filled):
    answer = filled("models", "info", "mine")
    assert answer.code == 0, answer.err
    for text in (
        "mine", DATASET, "MRI", "anterior 1", "3d_fullres", "umamba_seg.networks.umamba.UMambaBot", "40×56×40",
        "1×0.9×0.75 mm", "umamba 0.1.0, nnunetv2 2.8.1, torch 2.10.0", "nnUNetTrainerUMamba", "postprocessing.pkl",
    ):  # fmt: skip
        assert text in answer.out
    model = filled("models", "info", "mine", "--json").document()["model"]
    assert (model["name"], model["channels"], model["labels"]) == ("mine", ["MRI"], LABELS)
    assert (model["patch"], model["spacing"]) == ([40, 56, 40], [1.0, 0.9, 0.75])


def test_info_takes_what_is_not_installed_too(umamba):
    make_model(umamba.folder / "results")
    pack(umamba.folder / "results", umamba.folder / "model.zip")
    answer = umamba("models", "info", "model.zip")
    assert answer.code == 0, answer.err
    assert "UMambaBot" in answer.out


def test_list_is_a_table_on_stdout_and_the_option_names_another_store(filled):
    answer = filled("models", "list")
    assert answer.out.split()[:3] == ["model", "data", "set"]
    assert f"mine   {DATASET}  3d_fullres" in answer.out
    answer = filled("models", "list", "--models", "other")
    assert answer.out == ""
    assert "no model is installed" in answer.err


def test_the_setting_is_shown_with_its_source(umamba):
    settings = umamba("config", "models", "--json", UMAMBA_MODELS="elsewhere").document()["settings"]
    assert settings == {"models": {"value": "elsewhere", "source": "UMAMBA_MODELS"}}


def test_an_unknown_name_is_answered_with_the_closest(filled):
    for command in ("info", "verify", "remove"):
        assert "did you mean mine?" in mends(filled("models", command, "mien"), code=2)


def test_a_taken_name_is_refused(filled):
    folder = next(filled.folder.glob("results/*/*"))
    assert "already" in mends(filled("models", "install", folder, "--name", "mine"), code=2)
    answer = filled("models", "install", folder, "--name", "mine2", "--dry-run", "--json").document()
    assert [model["name"] for model in answer["models"]] == ["mine2"]
    assert [path.name for path in (filled.folder / "store").iterdir()] == ["mine"]


def test_a_checkpoint_that_would_run_code_needs_trust(umamba):
    marker = umamba.folder / "marker"
    folder = make_model(umamba.folder / "results")
    torch.save({"network_weights": {}, "bomb": Bomb(marker)}, folder / "fold_0" / "checkpoint_final.pth")
    assert "--trust" in mends(umamba("models", "install", folder), code=7)
    answer = umamba("models", "install", folder, "--trust")
    assert (answer.code, answer.out) == (0, f"{NAME}\n"), answer.err
    assert not marker.exists()


def test_a_hostile_zip_is_refused_in_one_sentence(umamba):
    make_model(umamba.folder / "results")
    path = pack(umamba.folder / "results", umamba.folder / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../escaped", "x")
    error = umamba("models", "install", path, "--json").document()["error"]
    assert error["code"] == "unsafe-zip"
    assert error["what"] == "the zip is not unpacked: '../escaped' leads out of the folder to unpack into"
    assert not list(umamba.folder.rglob("escaped"))


def test_verify_names_the_changed_file(filled):
    (filled.folder / "store" / "mine" / "plans.json").write_text("{}")
    answer = filled("models", "verify", "mine", "--json")
    assert (answer.code, answer.document()["models"]) == (7, {"mine": {"plans.json": "changed"}})
    assert "mine: plans.json changed" in filled("models", "verify").out


def test_remove_asks_a_terminal_and_nobody_else(filled):
    folder = filled.folder / "store" / "mine"
    assert "--yes" in mends(filled("models", "remove", "mine"), code=2)
    assert filled("models", "remove", "mine", "--dry-run").code == 0
    assert folder.is_dir()
    assert answered(filled, "n") == (0, True)
    assert answered(filled, "y") == (0, False)


def answered(umamba, word: str) -> tuple[int, bool]:
    """The exit code of `remove` at a terminal where `word` is typed, and whether the model is still there."""
    pty = pytest.importorskip("pty")
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, f"{word}\n".encode())
        command = [sys.executable, "-m", "umamba_seg.cli.main", "models", "remove", "mine"]
        done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, cwd=umamba.folder, timeout=60)
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert "remove " in done.stderr
    return done.returncode, (umamba.folder / "store" / "mine").is_dir()

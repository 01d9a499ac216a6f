import re
from pathlib import Path

import pytest

from umamba_seg.errors import MachineError, UsageError
from umamba_seg.workspace import (
    FOLDER_VARIABLES,
    current_shell,
    export_lines,
    find_dataset,
    locate,
    make_folder,
    settings,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_variables_the_folders_are_in_the_workspace(tmp_path):
    place = locate()
    assert place.raw == tmp_path / "umamba_workspace" / "nnUNet_raw"
    assert not place.is_set_by_variables()


def test_a_set_variable_wins_over_the_option_and_the_others_follow_the_option(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "mine"))
    place = locate(tmp_path / "asked")
    assert place.results == tmp_path / "mine"
    assert place.raw == tmp_path / "asked" / "nnUNet_raw"


def test_settings_come_from_option_variable_local_file_user_file_default_in_this_order(tmp_path, monkeypatch):
    assert settings()["device"].source == "default"
    user = tmp_path / "user.toml"
    user.write_text('device = "user"')
    monkeypatch.setenv("UMAMBA_CONFIG", str(user))
    assert settings()["device"].value == "user"
    Path("umamba.toml").write_text('device = "local"')
    assert settings()["device"].value == "local"
    monkeypatch.setenv("UMAMBA_DEVICE", "variable")
    assert settings()["device"].value == "variable"
    assert settings({"device": "option"})["device"].value == "option"


def test_models_are_the_users_unless_said_otherwise(tmp_path):
    assert Path(settings()["models"].value).parts[-2:] == ("umamba", "models")
    Path("umamba.toml").write_text('models = "here"')
    assert settings()["models"].value == "here"
    assert settings({"models": tmp_path})["models"].value == str(tmp_path)


@pytest.mark.parametrize("text", ["colour = 1", "num_threads = 'many'", "= nonsense"])
def test_a_settings_file_that_cannot_be_used_is_named(text):
    Path("umamba.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape("umamba.toml")):
        settings()


@pytest.mark.parametrize("text", ["4", "004", "Dataset004_Hippocampus", "Hippocampus"])
def test_a_dataset_is_found_by_id_and_name(text):
    place = locate()
    (place.raw / "Dataset004_Hippocampus").mkdir(parents=True)
    assert find_dataset(text, place).id == 4


def test_a_dataset_is_found_by_its_folder():
    place = locate()
    (place.raw / "Dataset004_Hippocampus").mkdir(parents=True)
    assert find_dataset("umamba_workspace/nnUNet_raw/Dataset004_Hippocampus", place).name == "Dataset004_Hippocampus"


def test_an_unknown_dataset_is_answered_with_the_closest():
    place = locate()
    (place.raw / "Dataset004_Hippocampus").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        find_dataset("Hipocampus", place)
    assert "Dataset004_Hippocampus" in caught.value.how[0]


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written to"):
        make_folder(tmp_path / "file" / "folder", where="nnUNet_raw")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "ps1", "conda"])
def test_export_lines_name_all_three_folders(shell):
    place = locate()
    lines = export_lines(place, shell)
    for variable, folder, line in zip(FOLDER_VARIABLES.values(), place.folders().values(), lines, strict=True):
        assert variable in line
        assert str(folder) in line


def test_an_unknown_shell_is_refused():
    with pytest.raises(UsageError, match="bash"):
        export_lines(locate(), "tcsh")


def test_the_shell_in_use_is_taken_from_the_environment(monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert current_shell() == "fish"

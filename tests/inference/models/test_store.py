import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from umamba_seg.errors import MachineError, ModelError, UsageError
from umamba_seg.inference.models import archives, store
from umamba_seg.inference.models.find import describe, find_model
from umamba_seg.inference.models.record import FILE
from umamba_seg.inference.models.store import install, installed, offers, remove, verify

DATASET = "Dataset004_Hippocampus"
NAME = f"{DATASET}__nnUNetTrainer__umambaBot8GPlans__3d_fullres"
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "umambaBot8GPlans",
    "configurations": {
        "3d_lowres": {"inherits_from": "3d_fullres", "patch_size": [20, 20, 20]},
        "3d_fullres": {
            "patch_size": [40, 56, 40],
            "spacing": [1.0, 0.9, 0.75],
            "architecture": {"network_class_name": "umamba_seg.networks.umamba.UMambaBot"},
        },
        "2d": {"patch_size": [56, 40], "spacing": [0.9, 0.75], "UNet_class_name": "PlainConvUNet"},
    },
}
LABELS = {"background": 0, "anterior": 1, "posterior": 2}
PROVENANCE = {
    "trainer": "nnUNetTrainerUMamba",
    "version": "0.1.0",
    "nnunetv2": "2.8.1",
    "torch": "2.10.0",
    "mixer": None,
}


def make_model(
    results: Path, configuration: str = "3d_fullres", folds: tuple[object, ...] = (0,), **checkpoint: Any
) -> Path:
    """A results folder as training leaves it, with weights of one number."""
    folder = results / DATASET / f"nnUNetTrainer__umambaBot8GPlans__{configuration}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "labels": LABELS}))
    (folder / "dataset_fingerprint.json").write_text("{}")
    for fold in folds:
        inside = folder / f"fold_{fold}"
        (inside / "validation").mkdir(parents=True)
        for name in ("validation/summary.json", "progress.png", "validation/case.nii.gz"):
            (inside / name).write_text(name)
        for name in ("checkpoint_final.pth", "checkpoint_latest.pth"):
            torch.save(
                {
                    "network_weights": {"weight": torch.ones(1)},
                    "logging": {"mean_fg_dice": [np.float32(0.5)]},
                    "trainer_name": "nnUNetTrainer",
                    "init_args": {"configuration": configuration, "device": torch.device("cpu")},
                    **checkpoint,
                },
                inside / name,
            )
    crossval = folder / "crossval_results_folds_0"
    crossval.mkdir()
    (crossval / "postprocessing.json").write_text("{}")
    (crossval / "postprocessing.pkl").write_bytes(b"a pickle")
    return folder


def pack(results: Path, path: Path) -> Path:
    """All results as nnU-Net's export packs them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(results.rglob("*")):
            if file.is_file() and file.name not in ("checkpoint_latest.pth", "case.nii.gz"):
                archive.write(file, file.relative_to(results))
    return path


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return Path.write_text, (self.marker, "code ran")


def content_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


TAKEN = {
    *("plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0/checkpoint_final.pth", "fold_0/progress.png"),
    *("fold_0/validation/summary.json", "crossval_results_folds_0/postprocessing.json"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The store of this test, in which no test may leave a half-made model."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "store"
    monkeypatch.setenv("UMAMBA_MODELS", str(folder))
    yield folder
    assert not list(folder.glob(".*"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_the_store_needs_neither_torch_nor_numpy():
    statement = "import umamba_seg.inference.models.store as s, sys; s.installed(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "nnunetv2", "umamba_seg.networks"} & set(done.stdout.split())


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "folder"])
def test_a_model_is_installed_with_what_it_needs_and_a_record(results, tmp_path, home, is_zip):
    source = make_model(results, folds=(0,), umamba_seg=PROVENANCE)
    before = content_of(results)
    if is_zip:
        source = pack(results, tmp_path / "model.zip")

    (model,) = install(source)

    assert [found.name for found in installed()] == [NAME] == [model.name]
    assert installed() == [model]
    assert content_of(home / NAME) == {*TAKEN, FILE}
    assert model.files.keys() == TAKEN
    assert (model.dataset, model.plans, model.configuration) == (DATASET, "umambaBot8GPlans", "3d_fullres")
    assert (model.folds, model.source, dict(model.provenance)) == (("0",), str(source), PROVENANCE)
    assert model.left_out == ("crossval_results_folds_0/postprocessing.pkl",)
    assert verify(NAME) == {}
    assert content_of(results) == before


def test_a_fold_stands_for_its_model_and_a_name_can_be_chosen(results, home):
    folder = make_model(results, folds=(0, 1, "all"))
    (model,) = install(folder / "fold_1", "hippocampus")
    assert (model.name, model.folds) == ("hippocampus", ("0", "1", "all"))
    assert (home / "hippocampus" / "plans.json").is_file()


def test_all_models_of_a_zip_are_installed_and_one_name_is_not_enough(results, tmp_path):
    for configuration in ("2d", "3d_fullres", "3d_lowres"):
        make_model(results, configuration)
    path = pack(results, tmp_path / "model.zip")
    with pytest.raises(UsageError, match="3 models are in it"):
        install(path, "hippocampus")
    assert [model.configuration for model in install(path)] == ["2d", "3d_fullres", "3d_lowres"]


def test_a_model_at_the_root_of_a_zip_and_in_a_folder_of_any_name_is_known_by_its_checkpoint(results, tmp_path):
    folder = make_model(results)
    path = pack(folder, tmp_path / "mine.zip")
    (model,) = install(path)
    assert (model.name, model.trainer, model.configuration) == ("mine", "nnUNetTrainer", "3d_fullres")
    (model,) = install(folder.rename(tmp_path / "other name"))
    assert (model.name, model.dataset, model.configuration) == ("other-name", DATASET, "3d_fullres")


def test_a_taken_name_is_refused_and_what_is_there_stays(results, tmp_path, home):
    folder = make_model(results)
    install(folder)
    (folder / "plans.json").write_text(json.dumps({**PLANS, "plans_name": "others"}))
    with pytest.raises(UsageError, match="already") as caught:
        install(folder)
    assert (caught.value.code, caught.value.exit_code) == ("name-taken", 2)
    (home / "file").touch()
    with pytest.raises(UsageError, match="already"):
        install(folder, "file")
    assert verify(NAME) == {}


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "/a", "C:a", "a b", "-o", "a\n", "a" * 201])
def test_names_that_could_lie_elsewhere_are_refused(results, name):
    with pytest.raises(UsageError, match="cannot be the name"):
        install(make_model(results), name)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "folder"])
def test_a_checkpoint_that_would_run_code_stays_out(results, tmp_path, home, is_zip):
    marker = tmp_path / "marker"
    source = make_model(results, folds=(0, 1))
    torch.save({"network_weights": {}, "bomb": Bomb(marker)}, source / "fold_1" / "checkpoint_final.pth")
    if is_zip:
        source = pack(results, tmp_path / "model.zip")

    with pytest.raises(ModelError, match="would run code") as caught:
        install(source)

    assert not marker.exists()
    assert content_of(home) == set()
    assert (caught.value.code, caught.value.exit_code) == ("untrusted-pickle", 7)
    assert caught.value.where == f"{source}: fold_1/checkpoint_final.pth"
    assert "--trust" in caught.value.how[0]


def test_trust_lets_it_in_without_running_it(results, tmp_path):
    marker = tmp_path / "marker"
    source = make_model(results, bomb=Bomb(marker))
    (model,) = install(source, is_trusted=True)
    assert not marker.exists()
    assert model.files.keys() == {*TAKEN, "crossval_results_folds_0/postprocessing.pkl"}
    assert (model.trainer, model.configuration, model.left_out) == ("nnUNetTrainer", "3d_fullres", ())
    torch.load(source / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert marker.exists()  # the bomb is one


def test_one_refused_model_of_a_zip_keeps_the_others_out(results, tmp_path, home):
    make_model(results, "2d")
    make_model(results, bomb=Bomb(tmp_path / "marker"))
    with pytest.raises(ModelError):
        install(pack(results, tmp_path / "model.zip"))
    assert content_of(home) == set()


def cut_off(folder: Path) -> None:
    file = folder / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:-100])


DAMAGES = {
    "cut-off": (cut_off, "cannot be read"),
    "no dataset.json": (lambda folder: (folder / "dataset.json").unlink(), r"no dataset\.json"),
    "no checkpoint": (lambda folder: (folder / "fold_0" / "checkpoint_final.pth").unlink(), "no fold has"),
    "broken plans": (lambda folder: (folder / "plans.json").write_text("{"), "cannot be read as JSON"),
    "no plans": (lambda folder: (folder / "plans.json").write_text("{}"), "no nnU-Net plans"),
    "weights alone": (
        lambda folder: torch.save({"weight": torch.ones(1)}, folder / "fold_0" / "checkpoint_final.pth"),
        "no network_weights",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_and_leaves_nothing(results, home, damage):
    break_it, reason = DAMAGES[damage]
    folder = make_model(results)
    break_it(folder)
    with pytest.raises(ModelError, match=reason) as caught:
        install(folder)
    assert caught.value.exit_code == 7
    assert content_of(home) == set()


def test_strange_words_in_a_checkpoint_do_no_harm(results):
    (model,) = install(make_model(results, umamba_seg=5, init_args=[1], trainer_name=None))
    assert (model.configuration, model.provenance) == ("3d_fullres", {})


KILLED = """
import os, sys
from umamba_seg.inference.models import store
store._publish = lambda *_: os._exit(9)
store.install(sys.argv[1])
"""


def test_a_kill_leaves_no_model_and_what_it_leaves_is_deleted_a_day_later(results, home):
    folder = make_model(results)
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False).returncode == 9
    (left,) = home.glob(".*.part")
    assert installed() == []
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    assert [model.name for model in install(folder)] == [NAME]


def test_a_name_that_somebody_takes_meanwhile_is_not_replaced(results, home, monkeypatch):
    folder = make_model(results)
    monkeypatch.setattr(store, "offers", lambda *_, **__: [store.Offer("mine", archives.EVERYTHING, 1)])
    install(folder)
    with pytest.raises(UsageError, match="already"):
        install(folder)
    assert verify("mine") == {}


def test_an_offer_writes_nothing(results, tmp_path, home):
    make_model(results, "2d")
    folder = make_model(results)
    found = offers(pack(results, tmp_path / "model.zip"))
    assert [offer.name.rpartition("__")[2] for offer in found] == ["2d", "3d_fullres"]
    assert offers(folder, "mine")[0].name == "mine"
    assert not home.exists()


def test_a_store_that_cannot_be_made_is_told(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written to") as caught:
        install(make_model(results), store=tmp_path / "file" / "store")
    assert "--models" in caught.value.how[0]


def test_verify_notices_what_changed_is_missing_and_was_added(results, home):
    install(make_model(results), "mine")
    file = home / "mine" / "fold_0" / "checkpoint_final.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert verify("mine") == {"fold_0/checkpoint_final.pth": "changed"}
    (home / "mine" / "dataset_fingerprint.json").unlink()
    (home / "mine" / "fold_1").mkdir()
    (home / "mine" / "fold_1" / "checkpoint_final.pth").touch()
    assert verify("mine") == {
        "fold_0/checkpoint_final.pth": "changed",
        "fold_1/checkpoint_final.pth": "added",
        "dataset_fingerprint.json": "missing",
    }


def test_remove_deletes_the_model_and_not_its_source(results, home):
    folder = make_model(results)
    install(folder, "mine")
    install(folder, "mine2")
    remove("mine")
    assert [model.name for model in installed()] == ["mine2"]
    assert folder.is_dir()
    assert not (home / "mine").exists()


@pytest.mark.parametrize("name", ["..", "../results", ".", "", "hippocampu"])
def test_what_is_not_in_the_store_cannot_be_removed(results, name):
    install(make_model(results), "hippocampus")
    with pytest.raises(UsageError, match="there is no model"):
        remove(name)
    assert results.is_dir()


def test_a_record_that_cannot_be_read_is_told_and_the_model_can_be_removed(results, home):
    install(make_model(results), "mine")
    (home / "mine" / FILE).write_text("{}")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        installed()
    assert caught.value.how[0] == "umamba models remove mine"
    remove("mine")
    assert installed() == []


def test_a_model_is_described_in_words_of_its_plans(results):
    folder = make_model(results, umamba_seg=PROVENANCE)
    install(folder, "mine")
    found = describe("mine")
    assert (found.channels, dict(found.labels)) == (("MRI",), LABELS)
    assert (found.network, found.patch, found.spacing) == (
        "umamba_seg.networks.umamba.UMambaBot", (40, 56, 40), (1.0, 0.9, 0.75),
    )  # fmt: skip
    assert found.record == installed()[0]
    other = describe(folder)
    assert (other.record.name, other.record.configuration, other.record.trainer) == ("", "3d_fullres", "nnUNetTrainer")
    assert other.patch == found.patch


def test_inherited_plans_and_those_of_old_versions_are_described_too(results):
    low, flat = describe(make_model(results, "3d_lowres")), describe(make_model(results, "2d"))
    assert (low.patch, low.spacing, low.network[-9:]) == ((20, 20, 20), (1.0, 0.9, 0.75), "UMambaBot")
    assert (flat.patch, flat.spacing, flat.network) == ((56, 40), (0.9, 0.75), "PlainConvUNet")


def test_plans_that_inherit_in_a_circle_come_to_an_end(results):
    folder = make_model(results, "2d")
    circle = {"2d": {"inherits_from": "x"}, "x": {"inherits_from": "2d", "patch_size": [1, 2]}}
    (folder / "plans.json").write_text(json.dumps({"configurations": circle}))
    assert describe(folder).patch == (1, 2)


def test_a_results_folder_and_a_fold_in_it_stand_for_themselves(results, monkeypatch):
    folder = make_model(results)
    for source in (folder, str(folder), folder / "fold_0"):
        with find_model(source) as found:
            assert found == folder
    monkeypatch.chdir(folder / "fold_0")
    with find_model(".") as found:
        assert found == folder


def test_a_name_stands_for_the_model_in_the_store(results, tmp_path, home):
    install(make_model(results), "mine")
    (tmp_path / "mine").mkdir()  # a folder that is no model hides none
    with find_model("mine") as found:
        assert found == home / "mine"


def test_a_zip_is_unpacked_while_the_block_lasts(results, tmp_path):
    make_model(results)
    path = pack(results, tmp_path / "model.zip")
    seen = []
    with pytest.raises(KeyError):
        use_and_fail(path, seen)
    assert seen[0].name == "nnUNetTrainer__umambaBot8GPlans__3d_fullres"
    assert not seen[0].parent.parent.parent.exists()


def use_and_fail(path: Path, seen: list[Path]) -> None:
    with find_model(path) as folder:
        assert (folder / "fold_0" / "checkpoint_final.pth").is_file()
        seen.append(folder)
        raise KeyError("any fault")


def test_a_zip_with_several_models_is_answered_with_their_names(results, tmp_path):
    make_model(results, "2d")
    make_model(results)
    with (
        pytest.raises(UsageError, match="2 models are in it") as caught,
        find_model(pack(results, tmp_path / "m.zip")),
    ):
        pass
    assert "__2d" in caught.value.what
    assert "umamba models install" in caught.value.how[0]


def test_an_unknown_name_is_answered_with_the_three_closest(results):
    folder = make_model(results)
    for name in ("hippocampus", "hippo", "liver", "hippocampus2"):
        install(folder, name)
    with pytest.raises(UsageError) as caught, find_model("hipocampus"):
        pass
    assert caught.value.code == "unknown-model"
    assert caught.value.how == ("did you mean hippocampus, hippocampus2, hippo?",)


def test_in_an_empty_store_the_way_out_is_to_install():
    with pytest.raises(UsageError) as caught, find_model("hippocampus"):
        pass
    assert "umamba models install" in caught.value.how[0]


@pytest.mark.parametrize("source", ["missing/model", "missing.zip"])
def test_a_path_to_nothing_is_told_as_a_path(source):
    for attempt in (lambda: find_model(source).__enter__(), lambda: install(source)):
        with pytest.raises(ModelError, match="no such model folder") as caught:
            attempt()
        assert caught.value.code == "no-model"


def test_the_folder_of_a_data_set_is_answered_with_the_models_in_it(results):
    folder = make_model(results)
    for attempt in (lambda: find_model(folder.parent).__enter__(), lambda: install(folder.parent)):
        with pytest.raises(ModelError, match=r"no plans\.json") as caught:
            attempt()
        assert str(folder) in caught.value.how[0]


def test_a_checkpoint_alone_is_no_model(tmp_path):
    torch.save({"network_weights": {}}, tmp_path / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="holds no nnU-Net model") as caught:
        install(tmp_path / "checkpoint_final.pth")
    assert "import-weights" in caught.value.how[1]

import json
from pathlib import Path

import pytest

from tests.helpers import DATASET
from umamba_seg.errors import ResourceError
from umamba_seg.planning import probe as module
from umamba_seg.planning.probe import measure, probe


@pytest.fixture
def task(phantoms_planned_once: Path) -> dict:
    folder = phantoms_planned_once / "umamba_workspace/nnUNet_preprocessed" / DATASET
    return {
        "plans": json.loads((folder / "our2DPlans.json").read_text()),
        "configuration": "2d",
        "dataset_json": json.loads((folder / "dataset.json").read_text()),
        "device": "cpu",
    }


@pytest.mark.parametrize("labels", ["regions", "ignore", "regions with ignore"])
def test_labels_of_all_kinds_are_trained(task, labels, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(module, "ITERATIONS", 1)
    monkeypatch.setattr(module, "_WARM_UP", 0)
    described = {"background": 0} | ({"whole": [1, 2], "core": 2} if "regions" in labels else {"organ": 1})
    if "ignore" in labels:
        described["ignore"] = 3 if "regions" in labels else 2
    task["dataset_json"] |= {"labels": described, "regions_class_order": [1, 2]}

    assert measure(**task, on_iteration=lambda done: None).iterations == 1


def test_a_network_that_does_not_fit_is_told(task, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "false")
    monkeypatch.setattr(module, "_OUT_OF_MEMORY", 1)
    monkeypatch.setattr(module, "_send", lambda process, task: None)
    with pytest.raises(ResourceError, match="does not fit"):
        probe(*task.values(), report=lambda progress: None)

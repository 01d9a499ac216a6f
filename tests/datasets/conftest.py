"""The data set that tests of check and fix break."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.liver import CASES, DESCRIPTION, image, label, save


@pytest.fixture(scope="session")
def clean_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset012_Liver"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for seed, case in enumerate(CASES):
        voxels = image(seed)
        voxels[label(seed) > 0] = 40 + seed
        save(folder / f"imagesTr/{case}_0000.nii.gz", voxels)
        save(folder / f"labelsTr/{case}.nii.gz", np.roll(label(seed), seed % 2, axis=0))
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return folder


@pytest.fixture
def raw(clean_once, tmp_path) -> Path:
    return shutil.copytree(clean_once, tmp_path / clean_once.name)

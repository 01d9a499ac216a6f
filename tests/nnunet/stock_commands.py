"""The way from a raw data set to label maps with stock commands, in processes that know no variable of ours."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from tests.helpers import DATASET, ROOT, Answer, Umamba

PLANS = "smallPlans"
NOTHING_OF_OURS = {"UMAMBA_NO_AUTOLOAD": "1", "nnUNet_extTrainer": ""}
PATCHES = {"2d": (16, 16), "3d_fullres": (16, 16, 16)}
# narrow networks, which the command line does not offer: torch is slow at small volumes with many channels
PLAN = """
import json, sys
from umamba_seg import plan
if __name__ == "__main__":
    plan("900", batch=2, processes=1, **json.loads(sys.argv[1]))
"""


def plan(place: Umamba, *configurations: str, **options: Any) -> dict[str, Any]:
    """Plan and preprocess some configurations; all of the plans by name."""
    settings = {"patch": PATCHES.get(configurations[0]), "features": 4, **options}
    settings |= {"configurations": configurations, "plans_name": PLANS}
    done(place.run(sys.executable, "-c", PLAN, json.dumps(settings)))
    return json.loads((folder(place, "preprocessed") / f"{PLANS}.json").read_text())["configurations"]


def train(place: Umamba, configuration: str, *options: object, **variables: str) -> Path:
    """Two iterations of `nnUNetv2_train`; the model's folder."""
    script = ROOT / "tests" / "short_nnunet_training.py"
    command = (script, 900, configuration, "all", "-p", PLANS, *options, "-device", "cpu")
    done(place.run(sys.executable, *command, **(NOTHING_OF_OURS | variables)))
    trainer = options[options.index("-tr") + 1] if "-tr" in options else "nnUNetTrainer"
    return folder(place, "results") / f"{trainer}__{PLANS}__{configuration}"


def predict(place: Umamba, model: Path, *options: object, images: str = "imagesTs", out: str = "out") -> np.ndarray:
    """`nnUNetv2_predict` of the one test case: its label map."""
    trainer, plans, configuration = model.name.split("__")
    command = (
        Path(sys.executable).with_name("nnUNetv2_predict"), "-d", 900, "-tr", trainer, "-p", plans, "-c", configuration,
        "-f", "all", "-i", folder(place, "raw") / images, "-o", out, *options,
        "--disable_tta", "-npp", 0, "-nps", 0, "-device", "cpu",
    )  # fmt: skip
    done(place.run(*command, **NOTHING_OF_OURS))
    (file,) = (place.folder / out).glob("*.nii.gz")
    label_map: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file))
    label = SimpleITK.ReadImage(folder(place, "raw") / images.replace("images", "labels") / file.name)
    assert label_map.shape == label.GetSize()[::-1]
    return label_map


def folder(place: Umamba, kind: str) -> Path:
    """Of the data set in one of nnU-Net's three folders."""
    return Path(place.variables[f"nnUNet_{kind}"]) / DATASET


def done(answer: Answer) -> None:
    assert answer.code == 0, answer.out[-1000:] + answer.err[-3000:]

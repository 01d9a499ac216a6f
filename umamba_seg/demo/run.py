"""The demo: phantoms, plans, a U-Mamba and its no-Mamba twin, label maps of unseen phantoms, a comparison.

Lengths and optimiser are chosen so that it takes minutes on two CPU cores; the rest is as in a real run. Both networks
get the same plans, data, patch, batch and number of iterations.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from umamba_seg.datasets.phantoms import LABELS, ORGANS, SHAPE, write_dataset
from umamba_seg.device import set_import_time_variables
from umamba_seg.errors import UsageError
from umamba_seg.files import write_text
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.workspace import Workspace

DATASET_ID = 900
CONFIGURATION = "3d_fullres"
MARKER, WORKSPACE, SEGMENTATIONS, PICTURE, SCORES = (
    ".umamba_demo",
    "umamba_workspace",
    "segmentations",
    "overlay.png",
    "demo.json",
)
PLANS = {"umamba_bot": "umambaBotDemoPlans", "umamba_bot_no_mamba": "umambaBotDemoNoMambaPlans"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much data, how large a network, how long a training."""

    cases: int
    test_cases: int
    epochs: int
    iterations: int
    patch: tuple[int, int, int]
    batch: int
    features: int
    trainer: str
    shape: tuple[int, int, int]


# see umamba_seg.trainers.demo for what its trainer changes
FULL = Recipe(
    cases=20,
    test_cases=4,
    epochs=3,
    iterations=60,
    patch=(16, 40, 40),
    batch=2,
    features=16,
    trainer="nnUNetTrainerDemo",
    shape=SHAPE,
)
QUICK = replace(FULL, cases=5, test_cases=1, epochs=1, iterations=2, patch=(16, 16, 16), features=4, shape=(16, 24, 24))


@dataclass(frozen=True, slots=True)
class Score:
    """How one network did on the unseen phantoms."""

    name: str
    model: Path
    dice: dict[str, float]
    seconds: float

    @property
    def mean_dice(self) -> float:
        """Over the organ classes."""
        return sum(self.dice[label] for label in ORGANS) / len(ORGANS)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where everything is, and the scores."""

    folder: Path
    workspace: Path
    picture: Path
    scores: tuple[Score, ...]
    seconds: float


def demo(
    folder: Path, *, quick: bool = False, seed: int = 0, device: str = "cpu", report: OnProgress = ignore
) -> DemoResult:
    """Run the whole way from images to a comparison in a new folder.

    Args:
        folder: Where everything goes. An earlier demo in it is replaced; a folder with anything else is refused.
        quick: Seconds instead of minutes, with networks that learn nothing; for tests.
        seed: What the phantoms and the initial values are made from.
        device: Where to train.
        report: Told how far it is.
    """
    began = time.monotonic()
    recipe = QUICK if quick else FULL
    _clear_earlier_demo(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    set_import_time_variables()
    place = Workspace.below(folder / WORKSPACE)
    with place.active():  # also where the user has set the variables: phantoms must not appear among real data
        raw = _make_phantoms(place.raw, recipe, seed, report)
        _plan(recipe, report)
        scores = tuple(_score(name, raw, folder, recipe, device, seed, report) for name in PLANS)
    picture = _draw(raw, folder)
    write_text(folder / SCORES, json.dumps(summary(scores), indent=1))
    return DemoResult(folder, folder / WORKSPACE, picture, scores, time.monotonic() - began)


def summary(scores: Sequence[Score]) -> dict[str, list[dict[str, object]]]:
    """The scores for programs."""
    return {
        "networks": [
            {
                "name": score.name,
                "mean_dice": round(score.mean_dice, 4),
                "seconds": round(score.seconds, 1),
                "dice": score.dice,
            }
            for score in scores
        ]
    }


def recipe_in_words(quick: bool) -> str:
    """What the demo will do, and how long that takes."""
    recipe = QUICK if quick else FULL
    patch = "×".join(map(str, recipe.patch))
    length = "under a minute" if quick else "three to four minutes"
    return (
        f"{recipe.cases} phantoms to train on, {recipe.test_cases} to test on; U-Mamba Bot and its no-Mamba twin, "
        f"{recipe.epochs} epochs of {recipe.iterations} iterations each, patch {patch}; {length} on 2 CPU cores"
    )


def clear_workspace(result: DemoResult) -> None:
    """Remove phantoms and models; picture, label maps and scores stay."""
    shutil.rmtree(result.workspace)


def _clear_earlier_demo(folder: Path) -> None:
    """Remove what an earlier demo left in `folder`, and nothing else."""
    ours = {MARKER, WORKSPACE, SEGMENTATIONS, PICTURE, SCORES}
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if present - ours or (present and MARKER not in present):
        what = f"the folder holds {min(present - ours or present)}, which no demo made"
        raise UsageError(what, where=str(folder), how=["choose another DIR"], code="folder-not-empty")
    for name in sorted(present):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def _make_phantoms(folder: Path, recipe: Recipe, seed: int, report: OnProgress) -> Path:
    total, done = recipe.cases + recipe.test_cases, 0

    def count(case: str) -> None:
        nonlocal done
        done += 1
        report(Progress("phantoms", done, total, "cases"))

    return write_dataset(
        folder,
        dataset_id=DATASET_ID,
        cases=recipe.cases,
        test_cases=recipe.test_cases,
        seed=seed,
        shape=recipe.shape,
        on_case=count,
    )


def _plan(recipe: Recipe, report: OnProgress) -> None:
    from umamba_seg.planning.plan import plan

    plan(
        str(DATASET_ID),
        configurations=[CONFIGURATION],
        twin=True,
        patch=recipe.patch,
        batch=recipe.batch,
        features=recipe.features,
        plans_name=PLANS["umamba_bot"],
        report=report,
    )


def _score(name: str, raw: Path, folder: Path, recipe: Recipe, device: str, seed: int, report: OnProgress) -> Score:
    """Train one network on all cases and compare its label maps of the test cases with the truth."""
    import torch

    from umamba_seg.inference.predict import predict
    from umamba_seg.nnunet.train import train

    began = time.monotonic()
    torch.manual_seed(seed)  # the same initial values where the twins share layers
    run = train(
        str(DATASET_ID),
        CONFIGURATION,
        "all",
        plans=PLANS[name],
        trainer=recipe.trainer,
        epochs=recipe.epochs,
        iterations=recipe.iterations,
        device=device,
        validate=False,
        report=report,
    )
    model = run.folder.parent
    result = predict(model, raw / "imagesTs", folder / SEGMENTATIONS / name, device=device, report=report)
    return Score(name, model, _mean_dice(raw, result.files), time.monotonic() - began)


def _mean_dice(raw: Path, predictions: Sequence[Path]) -> dict[str, float]:
    """Dice of each class, mean over cases, by nnU-Net's own evaluation."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    foreground = {label: value for label, value in LABELS.items() if value}
    cases = [
        compute_metrics(str(raw / "labelsTs" / file.name), str(file), SimpleITKIO(), list(foreground.values()))[
            "metrics"
        ]
        for file in predictions
    ]
    return {
        label: float(sum(case[value]["Dice"] for case in cases) / len(cases)) for label, value in foreground.items()
    }


def _draw(raw: Path, folder: Path) -> Path:
    """The first unseen phantom with the label map of the U-Mamba beside the truth."""
    import SimpleITK as sitk  # noqa: N813  (its users know it by no other name)

    from umamba_seg.inference.preview import CT_WINDOW, overlay

    network = next(iter(PLANS))
    truth = min((raw / "labelsTs").glob("*.nii.gz"))
    image, labels, reference = (
        sitk.ReadImage(str(path))
        for path in (
            raw / "imagesTs" / truth.name.replace(".nii.gz", "_0000.nii.gz"),
            folder / SEGMENTATIONS / network / truth.name,
            truth,
        )
    )
    picture = folder / PICTURE
    overlay(
        sitk.GetArrayFromImage(image),
        sitk.GetArrayFromImage(labels),
        image.GetSpacing()[::-1],
        picture,
        reference=sitk.GetArrayFromImage(reference),
        label_names={value: label for label, value in LABELS.items()},
        window=CT_WINDOW,
        title=f"{truth.name.removesuffix('.nii.gz')}, never seen in training",
    )
    return picture

"""Data sets that exist on paper: empty images and a fingerprint, which is all that planning reads."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.planning.plan import PlanResult, plan

NAME = "Dataset901_MadeUp"
STATISTICS = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")


@dataclass(frozen=True)
class MadeUp:
    workspace: Path

    @property
    def preprocessed(self) -> Path:
        return self.workspace / "nnUNet_preprocessed" / NAME

    def plan(self, **options: Any) -> PlanResult:
        return plan("901", dry_run=True, workspace=self.workspace, **options)

    def write_plans(self, plans: dict[str, Any]) -> Path:
        file = self.preprocessed / f"{plans['plans_name']}.json"
        file.write_text(json.dumps(plans))
        return file


def make_up(
    workspace: Path,
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    cases: int = 20,
    channels: Sequence[str] = ("CT",),
) -> MadeUp:
    raw, preprocessed = workspace / "nnUNet_raw" / NAME, workspace / "nnUNet_preprocessed" / NAME
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    for case in range(cases):
        for channel in range(len(channels)):
            (raw / f"imagesTr/case_{case:02d}_{channel:04d}.nii.gz").touch()
        (raw / f"labelsTr/case_{case:02d}.nii.gz").touch()
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",  # else nnU-Net reads an image to choose
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    fingerprint = {
        "spacings": [list(spacing)] * cases,
        "shapes_after_crop": [list(shape)] * cases,
        "foreground_intensity_properties_per_channel": {
            str(channel): dict.fromkeys(STATISTICS, 1.0) for channel in range(len(channels))
        },
        "median_relative_size_after_cropping": 1.0,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return MadeUp(workspace)


def write_case(path: Path, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """A preprocessed case as nnU-Net writes it: `shape` is that of the file, 16 slices were there before resampling."""
    import blosc2

    for ending, array in ((".b2nd", np.zeros((1, *shape), np.float32)), ("_seg.b2nd", np.zeros((1, *shape), np.int16))):
        blosc2.asarray(array, urlpath=f"{path}{ending}", mode="w")
    properties = {"shape_after_cropping_and_before_resampling": (16, *shape[1:]), "spacing": list(spacing)}
    path.with_suffix(".pkl").write_bytes(pickle.dumps(properties))

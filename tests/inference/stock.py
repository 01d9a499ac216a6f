"""What nnU-Net itself makes of images, in this process, and images to give to it."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
import torch

from umamba_seg.bench.made_up_model import blobs


def predicted_by_nnunet(
    model: Path,
    cases: Sequence[Sequence[Path]],
    folder: Path,
    *,
    mirror: bool = False,
    folds: Sequence[int] = (0,),
    previous: Path | None = None,
    probabilities: bool = False,
) -> None:
    """Write nnU-Net's label maps, `CASE.ending`, into a folder."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=mirror, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), tuple(folds), "checkpoint_final.pth")
        ending = predictor.dataset_json["file_ending"]
        outputs = [str(folder / files[0].name.removesuffix(f"_0000{ending}")) for files in cases]
        predictor.predict_from_files_sequential(
            [[str(file) for file in files] for files in cases],
            outputs,
            save_probabilities=probabilities,
            folder_with_segs_from_prev_stage=None if previous is None else str(previous),
        )


def write_image(
    path: Path, shape: Sequence[int], spacing: Sequence[float], *, seed: int = 0, scale: float = 60.0, empty: int = 0
) -> Path:
    """Balls of other intensities, with some empty voxels around them; an oblique grid off the origin."""
    image = blobs(shape, 4, seed)[1] * scale + 100
    if empty:
        whole = np.zeros([size + 2 * empty for size in shape], np.float32)
        whole[tuple(slice(empty, -empty) for _ in shape)] = image
        image = whole
    grid = SimpleITK.GetImageFromArray(image.astype(np.float32))
    grid.SetSpacing([float(length) for length in spacing[::-1]])
    grid.SetOrigin([3.0, -2.0, 7.0][: len(spacing)])
    if len(spacing) == 3:
        turn = SimpleITK.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3)
        grid.SetDirection(turn.GetMatrix())
    SimpleITK.WriteImage(grid, str(path))
    return path


def labels_in(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))

"""What a user may call a model: a results folder, a fold in one, or a zip of nnU-Net's with one or more."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umamba_seg.errors import ModelError, UsageError
from umamba_seg.inference.models import archives
from umamba_seg.inference.models.record import DATASET, absolute, kept, size_of_files


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a zip or a folder has for the store.

    Args:
        name: It would get.
        place: Its results folder inside the zip; `.` where the source is the results folder.
        size: Bytes, about.
    """

    name: str
    place: PurePosixPath
    size: int


def offers_of(path: Path) -> list[Offer]:
    """The models in a folder or zip, each under a name of its own.

    Raises:
        ModelError: There is none, or a zip that nobody should unpack.
    """
    folder = results_folder(path)
    if folder is not None:
        return [Offer(_default_name(origin(path)), archives.EVERYTHING, size_of_files(kept(folder)))]
    if not path.is_file():
        raise no_model(path)
    places = archives.models_in(path)
    if not places:
        how = [
            "nnUNetv2_export_model_to_zip packs plans.json, dataset.json and fold_0/checkpoint_final.pth into one",
            f"for a checkpoint alone:  umamba import-weights {path} -o MODEL",
        ]
        raise ModelError("the file holds no nnU-Net model", where=str(path), how=how, code="no-model")
    return [Offer(_default_name(origin(path, place)), place, archives.size_of(path, place)) for place in places]


def results_folder(path: Path) -> Path | None:
    """The results folder that a path is, or that holds the fold it is."""
    if (path / "plans.json").is_file():
        return path
    whole = absolute(path)
    is_fold = whole.is_dir() and whole.name.startswith("fold_") and (whole.parent / "plans.json").is_file()
    return whole.parent if is_fold else None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The results folder of a zip with one model, for as long as the block lasts."""
    found = offers_of(path)
    if len(found) > 1:
        how = [f"umamba models install {path}", "then use one of the names it prints"]
        raise UsageError(f"{many(found)}; say which", where=str(path), how=how, code="many-models")
    with tempfile.TemporaryDirectory(prefix="umamba-") as spare:
        folder = Path(spare) / "model"
        archives.unpack(path, folder, below=found[0].place)
        yield folder / found[0].place


def origin(source: Path, place: PurePosixPath = archives.EVERYTHING) -> Path:
    """Where a model comes from, with the zip as a folder: the names of the last two folders tell what it is."""
    return results_folder(absolute(source)) or absolute(source).with_suffix("") / place


def _default_name(origin: Path) -> str:
    """`Dataset004_Hippocampus__nnUNetTrainer__nnUNetPlans__2d`, of the folders' names; else the last folder's."""
    parts = [origin.parent.name] if DATASET.match(origin.parent.name) else []
    return re.sub(r"[^\w.+-]", "-", "__".join([*parts, origin.name])).lstrip(".+-")[:200] or "model"


def no_model(path: Path) -> ModelError:
    """What to say of a path that is no model."""
    if not path.exists():
        how = [
            "give TRAINER__PLANS__CONFIGURATION below nnUNet_results/DATASET, a zip, or a name of umamba models list"
        ]
        return ModelError("there is no such model folder or zip", where=str(path), how=how, code="no-model")
    inside = sorted(file.parent for file in [*path.glob("*/plans.json"), *path.glob("*/*/plans.json")])[:3]
    how = [f"give a folder that has one: {', '.join(map(str, inside))}"] if inside else []
    how = how or ["give the folder that holds fold_0, not a fold or the data set's folder"]
    return ModelError("the model folder has no plans.json", where=str(path), how=how, code="incomplete-model")


def many(found: Sequence[Offer]) -> str:
    """`2 models are in it, A, B`."""
    return f"{len(found)} models are in it, {', '.join(str(offer.place) for offer in found)}"

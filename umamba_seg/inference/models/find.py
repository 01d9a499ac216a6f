"""The model that a user means, wherever it lies, and what is known of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umamba_seg.inference.models.record import (
    FILE,
    InstalledModel,
    kept,
    read_model_json,
    read_record,
    size_of_files,
    unread_record,
)
from umamba_seg.inference.models.sources import no_model, results_folder, unpacked
from umamba_seg.inference.models.store import folder_of, names_in, store_folder
from umamba_seg.workspace import channel_names


@dataclass(frozen=True, slots=True)
class Description:
    """A model in a user's words.

    Args:
        record: Where it comes from.
        labels: Values by name, as in dataset.json.
        channels: Names of the images it wants, in order.
        network: Dotted name of the network's class; empty where the plans do not say.
        patch: Voxels of a patch.
        spacing: Their edges in mm.
        size: Bytes of its files.
    """

    record: InstalledModel
    labels: Mapping[str, Any]
    channels: tuple[str, ...]
    network: str
    patch: tuple[int, ...]
    spacing: tuple[float, ...]
    size: int


def describe(source: str | Path, *, store: Path | None = None) -> Description:
    """What is known of a model: of the store, or another that `find_model` finds."""
    with find_model(source, store=store) as folder:
        record = read_record(folder / FILE) if (folder / FILE).is_file() else unread_record(folder, source)
        plans, dataset_json = read_model_json(folder / "plans.json"), read_model_json(folder / "dataset.json")
        entry = _configuration(plans, record.configuration)
        network = entry.get("architecture", {}).get("network_class_name") or entry.get("UNet_class_name", "")
        return Description(
            record=record,
            labels=dataset_json.get("labels", {}),
            channels=tuple(channel_names(dataset_json)),
            network=network,
            patch=tuple(entry.get("patch_size", ())),
            spacing=tuple(entry.get("spacing", ())),
            size=size_of_files(kept(folder, is_trusted=True)),
        )


@contextmanager
def find_model(source: str | Path, *, store: Path | None = None) -> Iterator[Path]:
    """The results folder that a user means.

    Args:
        source: A results folder, a fold in one, a zip with one model (unpacked for as long as the block lasts), or a
            name in the store.
        store: The folder of the store; by default as the setting `models` says.

    Raises:
        ModelError: A folder or zip that is no model.
        UsageError: A name that is not in the store, or a zip with several models.
    """
    path = Path(source)
    if (folder := results_folder(path)) is not None:
        yield folder
    elif path.is_file():
        with unpacked(path) as folder:
            yield folder
    else:
        yield _named(str(source), path, store_folder(store))


def _named(name: str, path: Path, home: Path) -> Path:
    """A model of the store; what looks like a path and is none is told as such."""
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".zip"
    if is_path and name not in names_in(home):
        raise no_model(path)
    return folder_of(name, store=home)


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One configuration of the plans with what it inherits from others; empty where there is none of that name."""
    entry: dict[str, Any] = {}
    left = dict(plans["configurations"])
    while found := left.pop(name, None):  # each once: plans that inherit in a circle come to an end
        entry = {**found, **entry}
        name = found.get("inherits_from", "")
    return entry

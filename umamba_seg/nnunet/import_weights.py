"""Weights that others have trained, as a model folder that nnU-Net and `umamba predict` can use.

A checkpoint of an nnU-Net fork brings plans and data set description of its time. Weights alone bring neither: they
come from files, or from the recipe of the one published model that has no plans.
"""

import json
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from umamba_seg import __version__
from umamba_seg.errors import ModelError, UsageError, unknown
from umamba_seg.files import write_text
from umamba_seg.networks import create, find
from umamba_seg.networks.architecture import architecture
from umamba_seg.networks.published import check_weights
from umamba_seg.networks.weights import Recognised, read_file, recognise
from umamba_seg.nnunet.published_recipes import RECIPES
from umamba_seg.run_record import sha256
from umamba_seg.training.checkpoints import FINAL, HOST_TRAINER, PROVENANCE, write
from umamba_seg.workspace import channel_names, read_json


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported.

    Args:
        folder: The model folder.
        network: Name of the network.
        arch_kwargs: Its keyword arguments, in the plans now.
        configuration: Of the plans.
        fold: Of the model folder.
        parameters: How many numbers the weights are.
    """

    folder: Path
    network: str
    arch_kwargs: Mapping[str, Any]
    configuration: str
    fold: int | str
    parameters: int


@dataclass(frozen=True, slots=True)
class _Source:
    """What a file holds."""

    weights: Mapping[str, Any]
    plans: dict[str, Any] | None = None
    dataset_json: dict[str, Any] | None = None
    configuration: str | None = None
    fold: int | str = 0
    mirror_axes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Training:
    """What a model was trained on."""

    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str


def import_weights(
    checkpoint: Path | str,
    output: Path | str,
    *,
    plans: Path | None = None,
    dataset_json: Path | None = None,
    configuration: str | None = None,
    recipe: str | None = None,
    is_trusted: bool = False,
    overwrite: bool = False,
) -> ImportResult:
    """Write a model folder from a checkpoint or from weights alone.

    Args:
        checkpoint: What an nnU-Net fork or a training script saved.
        output: The model folder to make.
        plans: nnU-Net plans, for weights that bring none.
        dataset_json: Their dataset.json.
        configuration: Which of the plans; needed where there are several and the checkpoint does not say.
        recipe: A name in `RECIPES`, in place of plans and dataset.json.
        is_trusted: Whether reading the checkpoint may run code from it.
        overwrite: Replace a model that is there.

    Raises:
        ModelError: The file cannot be read, or the weights are of no known network, or do not fit plans or data set.
        UsageError: Options that are missing or do not fit together.
    """
    path, folder = Path(checkpoint), Path(output)
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path), code="no-checkpoint")
    source = _source(read_file(path, is_trusted=is_trusted))
    found = recognise(source.weights)
    training = _training(source, plans, dataset_json, configuration, recipe, path)
    _check_data(found, training, path)
    changed = _with_network(training, found, path)
    block = changed["configurations"][training.configuration]["architecture"]
    weights = _fitting(found, block["arch_kwargs"], path)

    target = folder / f"fold_{source.fold}" / FINAL
    described = {"plans.json": changed, "dataset.json": training.dataset_json}
    texts = {folder / name: json.dumps(content, indent=4) for name, content in described.items()}
    if not overwrite:
        _check_free(target, texts)
    target.parent.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(file, text)
    # the weights last: without them nobody takes the folder for a model
    write(_checkpoint(source, replace(training, plans=changed), weights, found, path), target)
    parameters = sum(value.numel() for value in weights.values())
    return ImportResult(folder, found.network, block["arch_kwargs"], training.configuration, source.fold, parameters)


def _check_free(target: Path, texts: Mapping[Path, str]) -> None:
    """Refuse a folder that holds this fold, or folds of another model."""
    others = [file for file, text in texts.items() if file.exists() and file.read_text("utf-8") != text]
    for file in [target] if target.exists() else others:
        how = ["choose another folder, or --overwrite"]
        raise UsageError("there is a model already", where=str(file), how=how, code="output-exists")


def _source(content: Mapping[str, Any]) -> _Source:
    if "network_weights" in content:
        told = content.get("init_args", {})
        axes = content.get("inference_allowed_mirroring_axes")
        return _Source(
            content["network_weights"], told.get("plans"), told.get("dataset_json"), told.get("configuration"),
            told.get("fold", 0), None if axes is None else tuple(axes),
        )  # fmt: skip
    return _Source(content)


def _training(
    source: _Source,
    plans: Path | None,
    dataset_json: Path | None,
    configuration: str | None,
    recipe: str | None,
    path: Path,
) -> _Training:
    """What files, a recipe and the checkpoint tell together; what is given goes before what the checkpoint brings."""
    if recipe is not None and recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES, where="--recipe")
    made = RECIPES[recipe]() if recipe is not None else (None, None)
    told_plans: dict[str, Any] | None = read_json(plans) if plans is not None else made[0] or source.plans
    told_data: dict[str, Any] | None = (
        read_json(dataset_json) if dataset_json is not None else made[1] or source.dataset_json
    )
    if told_plans is None or told_data is None:
        missing = [name for name, value in (("--plans", told_plans), ("--dataset-json", told_data)) if value is None]
        how = [
            f"give {' and '.join(missing)} of the data set the network was trained on",
            *(f"or --recipe {name}, for the published model" for name in RECIPES),
        ]
        what = "the file holds weights alone, and nothing about spacing, intensities and labels"
        raise UsageError(what, where=str(path), how=how, code="no-plans")
    names = list(told_plans["configurations"])
    chosen = configuration or source.configuration or (names[0] if len(names) == 1 else None)
    if chosen is None:
        what = f"say which configuration with -c: {', '.join(names)}"
        raise UsageError(what, where=str(path), code="no-configuration")
    if chosen not in names:
        raise unknown("configuration", chosen, names, where="-c")
    return _Training(told_plans, told_data, chosen)


def _check_data(found: Recognised, training: _Training, path: Path) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    channels = len(channel_names(training.dataset_json))
    heads = PlansManager(training.plans).get_label_manager(training.dataset_json).num_segmentation_heads
    for what, of_weights, of_data in (
        ("channels of the image", found.input_channels, channels),
        ("channels of the logits", found.num_classes, heads),
    ):
        if of_weights != of_data:
            raise ModelError(
                f"the weights have {of_weights} {what}, the data set {of_data}",
                where=str(path), how=["give the --dataset-json they were trained with"], code="other-data-set",
            )  # fmt: skip


def _with_network(training: _Training, found: Recognised, path: Path) -> dict[str, Any]:
    """A copy of the plans whose configuration names our network and inherits from none."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, configuration = training.plans, training.configuration
    with warnings.catch_warnings():  # upstream warns of plans in the form of old versions, which it changes as we want
        warnings.simplefilter("ignore")
        resolved = deepcopy(PlansManager(deepcopy(plans)).get_configuration(configuration).configuration)
    if len(resolved["patch_size"]) != found.dims:
        what = f"configuration {configuration!r} has {len(resolved['patch_size'])} axes, the weights have {found.dims}"
        raise ModelError(what, where=str(path), how=["choose another with -c"], code="other-configuration")
    record = find(found.network)
    if found.arch_kwargs is None:
        block = architecture(record, resolved["architecture"], resolved["patch_size"])
    else:
        kwargs = {**found.arch_kwargs, **record.fixed}
        block = {"network_class_name": record.class_path, "arch_kwargs": kwargs, "_kw_requires_import": []}
    changed = deepcopy(plans)
    changed["configurations"][configuration] = {**resolved, "architecture": block}
    return changed


def _fitting(found: Recognised, arch_kwargs: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights without their aliases, after a look at whether they fit the network."""
    with torch.device("meta"):
        network: nn.Module = create(
            found.network, found.input_channels, found.num_classes, deep_supervision=False, **arch_kwargs
        )
    wanted = network.state_dict()
    try:
        check_weights(wanted, found.weights)
    except ModelError as fault:
        raise ModelError(
            fault.what, where=str(path), how=["give the --plans that the network was trained with"], code=fault.code
        ) from fault
    return {name: found.weights[name] for name in wanted}


def _checkpoint(
    source: _Source, training: _Training, weights: Mapping[str, Tensor], found: Recognised, path: Path
) -> dict[str, Any]:
    return {
        "network_weights": dict(weights),
        "trainer_name": HOST_TRAINER,
        "inference_allowed_mirroring_axes": source.mirror_axes or tuple(range(found.dims)),
        "init_args": {
            "plans": training.plans,
            "configuration": training.configuration,
            "fold": source.fold,
            "dataset_json": training.dataset_json,
        },
        PROVENANCE: {
            "version": __version__,
            "network": found.network,
            "imported_from": path.name,
            "sha256": sha256(path),
        },
    }

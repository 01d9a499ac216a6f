"""A trained model on disk: plans, folds, weights; any network that its plans name."""

import pydoc
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umamba_seg.errors import ModelError
from umamba_seg.inference.plans import Configuration, Labels, Plans
from umamba_seg.workspace import channel_names, read_json

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from torch import Tensor, nn

FINAL = "checkpoint_final.pth"
STOCK = "dynamic_network_architectures."  # networks of nnU-Net's own, which hold nothing but what checkpoints hold
Fold = int | str

# Trainers that build what the plans name: nnU-Net's own, its lengths of training, and ours, which call themselves so.
_BUILDS_FROM_PLANS = re.compile(r"nnUNetTrainer(_\d+epochs?)?")


@dataclass(frozen=True)
class ModelFolder:
    """A results folder, `TRAINER__PLANS__CONFIGURATION`, and the folds of it that are used.

    Args:
        folder: Where it is.
        folds: Numbers, or `all`.
        dataset_json: Labels, channels and file ending.
    """

    folder: Path
    folds: tuple[Fold, ...]
    dataset_json: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, folds: Sequence[Fold] = ()) -> "ModelFolder":
        """Look at a folder without reading weights.

        Without a wish all numbered folds are used, or `all` where only that is there.

        Raises:
            ModelError: It is no results folder, or lacks a fold.
        """
        if not folder.is_dir():
            how = ["give the results folder, TRAINER__PLANS__CONFIGURATION below nnUNet_results/DATASET"]
            raise ModelError("there is no such model folder", where=str(folder), how=how, code="no-model")
        for name in ("plans.json", "dataset.json"):
            if not (folder / name).is_file():
                how = ["give the folder that holds fold_0, not a fold or the data set's folder"]
                raise ModelError(f"the model folder has no {name}", where=str(folder), how=how, code="incomplete-model")
        return cls(folder, _choose_folds(folder, folds), read_json(folder / "dataset.json"))

    @property
    def channels(self) -> list[str]:
        """Names of the image's channels, in the model's order."""
        return channel_names(self.dataset_json)

    @property
    def ending(self) -> str:
        """Of image files: `.nii.gz`."""
        return str(self.dataset_json["file_ending"])

    @property
    def endings(self) -> list[str]:
        """Of image files that the plan's reader takes, the data set's own first."""
        itk = [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl"]
        own, reader = self.ending, self.plans.plans["image_reader_writer"]
        return [own, *(e for e in itk if e != own)] if reader.startswith("SimpleITK") else [own]

    @property
    def checkpoints(self) -> list[Path]:
        """The weights of each fold that is used."""
        return [self.folder / f"fold_{fold}" / FINAL for fold in self.folds]

    @cached_property
    def plans(self) -> Plans:
        """What was planned.

        Raises:
            ModelError: The file lacks something.
        """
        try:
            return Plans(read_json(self.folder / "plans.json"))
        except KeyError as fault:
            raise ModelError(f"plans.json lacks {fault}", where=str(self.folder), code="bad-model") from fault

    @cached_property
    def labels(self) -> "Labels | LabelManager":
        """Which classes or regions there are."""
        return self.plans.labels(self.dataset_json)

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """Spacings, sizes and intensities of the training data, where the folder keeps them."""
        file = self.folder / "dataset_fingerprint.json"
        return read_json(file) if file.is_file() else None

    def load(self, *, trust: bool = False) -> "Weights":
        """Read the weights of all folds.

        Args:
            trust: Whether code in the checkpoints may run, as unpickling does.

        Raises:
            ModelError: One cannot be read, or not without running code.
        """
        from umamba_seg.networks.weights import read_file

        contents = [read_file(file, is_trusted=trust) for file in self.checkpoints]
        try:
            first = contents[0]
            name = str(first["init_args"]["configuration"])
            axes = first.get("inference_allowed_mirroring_axes")
            weights = tuple(content["network_weights"] for content in contents)
            configuration = self.plans.get_configuration(name)
            trainer = str(first["trainer_name"])
        except (KeyError, TypeError, RuntimeError, ValueError) as fault:
            what = f"the checkpoint or its plans lack {fault}"
            raise ModelError(what, where=str(self.checkpoints[0]), code="bad-model") from fault
        mirrored = None if axes is None else tuple(int(axis) for axis in axes)
        return Weights(self, name, configuration, trainer, mirrored, weights)


@dataclass(frozen=True)
class Weights:
    """What the checkpoints of a model hold.

    Args:
        model: Whose they are.
        name: Of the configuration, `3d_fullres`.
        configuration: Patch, spacing and network.
        trainer: Name of the trainer, which may build another network than the plans name.
        mirror_axes: Along which the network may see the image mirrored; None along none.
        folds: The weights of each.
    """

    model: ModelFolder
    name: str
    configuration: Configuration
    trainer: str
    mirror_axes: tuple[int, ...] | None
    folds: tuple["dict[str, Tensor]", ...]

    @property
    def tile(self) -> tuple[int, int, int]:
        """Size of a tile; one slice thick where the network is two-dimensional."""
        patch = tuple(self.configuration.patch_size)
        return (1, *patch) if len(patch) == 2 else patch  # type: ignore[return-value]

    @property
    def input_channels(self) -> int:
        """Of the network: images, and the classes of the stage before."""
        return len(self.model.channels) + (len(self.model.labels.foreground_labels) if self.is_cascaded else 0)

    @property
    def is_flat(self) -> bool:
        """Whether the network is two-dimensional."""
        return len(self.configuration.patch_size) == 2

    @property
    def is_cascaded(self) -> bool:
        """Whether it also reads the label map of another configuration."""
        return self.configuration.previous_stage_name is not None

    def networks(self) -> "list[nn.Module]":
        """A network for each fold, ready to predict.

        Raises:
            ModelError: The network cannot be built, or the weights are not of it.
        """
        where = str(self.model.folder)
        networks = []
        for weights in self.folds:
            try:
                network = self._build()
                network.load_state_dict(weights, assign=True)
            except (RuntimeError, ImportError, TypeError, ValueError, AttributeError, KeyError) as fault:
                reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
                how = ["it may be damaged, or made by another version or by a trainer that is not installed here"]
                raise ModelError(
                    f"the model cannot be loaded: {reason}", where=where, how=how, code="bad-model"
                ) from fault
            networks.append(network.eval().requires_grad_(False))
        return networks

    def _build(self) -> "nn.Module":
        model, configuration, inputs = self.model, self.configuration, self.input_channels
        outputs = model.labels.num_segmentation_heads
        if _BUILDS_FROM_PLANS.fullmatch(self.trainer):
            import torch
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

            architecture = configuration.network_arch_class_name
            is_stock = architecture.startswith(STOCK)
            if not is_stock and pydoc.locate(architecture) is None:
                raise ImportError(f"the package of {architecture} is not installed")
            with torch.device("meta") if is_stock else nullcontext():  # no random values that are replaced at once
                return get_network_from_plans(
                    architecture,
                    configuration.network_arch_init_kwargs,
                    configuration.network_arch_init_kwargs_req_import,
                    inputs,
                    outputs,
                    allow_init=False,
                    deep_supervision=False,
                )
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        trainer, plans = recursive_find_trainer_class_by_name(self.trainer), PlansManager(model.plans.plans)
        return trainer.build_network_architecture(
            plans, plans.get_configuration(self.name), inputs, outputs, enable_deep_supervision=False
        )


def _choose_folds(folder: Path, wanted: Sequence[Fold]) -> tuple[Fold, ...]:
    trained = [path.parent.name.removeprefix("fold_") for path in sorted(folder.glob(f"fold_*/{FINAL}"))]
    if not trained:
        how = ["finish training first: the same  umamba train  command goes on"]
        raise ModelError(f"no fold has a {FINAL}", where=str(folder), how=how, code="no-folds")
    numbered = [name for name in trained if name != "all"]
    for fold in wanted:
        if str(fold) not in trained:
            what = f"fold {fold} is not trained; there are {', '.join(trained)}"
            raise ModelError(what, where=str(folder), how=["leave -f out to use all"], code="missing-fold")
    names = [str(fold) for fold in wanted] or numbered or trained
    return tuple(int(name) if name.isdecimal() else name for name in names)

"""A model that nobody trained: a stock U-Net with random weights in a folder as nnU-Net would have left it.

For measuring and testing prediction, where only the arithmetic matters. With `fit` the last layer is set by least
squares to tell classes by their intensity, so that its logits are about as decided as those of a trained network.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


@dataclass(frozen=True)
class MadeUp:
    """What the model is like.

    Args:
        classes: With the background.
        tile: Size of a tile; two numbers make a two-dimensional configuration.
        spacing: Of the grid, as many numbers.
        features: Channels of each stage.
        configuration: Its name.
        channels: Name, normalisation and whether a mask is used, for each channel of the image.
        regions: Labels of each region, in place of exclusive classes.
        has_ignore_label: Whether labels may be ignored in training.
        transpose: Of the axes, as plans have it.
        folds: Numbers of the folds, each with weights of its own.
        reader: nnU-Net's name of what reads images.
        ending: Of their files.
        previous: Name of the configuration whose label map the network reads too.
        resampling: Name of nnU-Net's function, and what else is in the plans of it.
    """

    classes: int = 3
    tile: tuple[int, ...] = (16, 16, 16)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    features: tuple[int, ...] = (4, 8)
    configuration: str = "3d_fullres"
    channels: tuple[tuple[str, str, bool], ...] = (("MR", "ZScoreNormalization", False),)
    regions: Mapping[str, Sequence[int]] | None = None
    has_ignore_label: bool = False
    transpose: tuple[int, int, int] = (0, 1, 2)
    folds: tuple[int, ...] = (0,)
    reader: str = "SimpleITKIO"
    ending: str = ".nii.gz"
    previous: str | None = None
    resampling: str = "resample_data_or_seg_to_shape"
    resampling_options: Mapping[str, Any] = field(default_factory=lambda: {"force_separate_z": None, "order_z": 0})

    def write(self, folder: Path, *, fit: bool = False) -> Path:
        """Make `folder/nnUNetTrainer__madeUpPlans__CONFIGURATION` and return it."""
        model = folder / f"nnUNetTrainer__madeUpPlans__{self.configuration}"
        model.mkdir(parents=True, exist_ok=True)
        (model / "dataset.json").write_text(json.dumps(self.dataset_json()), "utf-8")
        (model / "plans.json").write_text(json.dumps(self.plans()), "utf-8")
        for fold in self.folds:
            (model / f"fold_{fold}").mkdir(exist_ok=True)
            torch.save(self._checkpoint(fold, fit=fit), model / f"fold_{fold}/checkpoint_final.pth")
        return model

    def dataset_json(self) -> dict[str, Any]:
        """Labels and channels."""
        labels: dict[str, Any] = {"background": 0}
        classes: dict[str, Any] = {f"class {value}": value for value in range(1, self.classes)}
        labels |= dict(self.regions) if self.regions else classes
        description: dict[str, Any] = {
            "channel_names": {str(i): name for i, (name, _, _) in enumerate(self.channels)},
            "numTraining": 1,
            "file_ending": self.ending,
        }
        if self.regions:
            description["regions_class_order"] = list(range(1, len(self.regions) + 1))
        if self.has_ignore_label:
            labels["ignore"] = self.classes
        return {**description, "labels": labels}

    def plans(self) -> dict[str, Any]:
        """As nnU-Net's planner writes them, as far as prediction reads them."""
        is_usual = self.resampling == "resample_data_or_seg_to_shape"
        of_order = {n: ({"order": n} if is_usual else {}) | dict(self.resampling_options) for n in (1, 3)}
        configuration = {
            "data_identifier": "madeUp", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": list(self.tile), "spacing": list(self.spacing),
            "median_image_size_in_voxels": list(self.tile), "batch_dice": False,
            "normalization_schemes": [scheme for _, scheme, _ in self.channels],
            "use_mask_for_norm": [is_masked for _, _, is_masked in self.channels],
            "resampling_fn_data": self.resampling,
            "resampling_fn_data_kwargs": {"is_seg": False, **of_order[3]},
            "resampling_fn_seg": self.resampling, "resampling_fn_seg_kwargs": {"is_seg": True, **of_order[1]},
            "resampling_fn_probabilities": self.resampling,
            "resampling_fn_probabilities_kwargs": {"is_seg": False, **of_order[1]},
            "architecture": self._architecture(),
        }  # fmt: skip
        if self.previous:
            configuration["previous_stage"] = self.previous
        intensities = {"mean": 100.0, "std": 60.0, "percentile_00_5": -50.0, "percentile_99_5": 260.0}
        is_picture = self.reader == "NaturalImage2DIO"
        across = ((), ()) if len(self.tile) == 3 else ((999.0,), (1,)) if is_picture else ((4.0,), (16,))
        backward = [self.transpose.index(axis) for axis in range(3)]
        return {
            "dataset_name": "Dataset999_MadeUp", "plans_name": "madeUpPlans", "image_reader_writer": self.reader,
            "original_median_spacing_after_transp": [*across[0], *self.spacing], "label_manager": "LabelManager",
            "original_median_shape_after_transp": [*across[1], *self.tile],
            "experiment_planner_used": "ExperimentPlanner",
            "transpose_forward": list(self.transpose), "transpose_backward": backward,
            "configurations": {self.configuration: configuration},
            "foreground_intensity_properties_per_channel": {
                str(i): {**intensities, "min": -100.0, "max": 400.0, "median": 90.0} for i in range(len(self.channels))
            },
        }  # fmt: skip

    def _architecture(self) -> dict[str, Any]:
        dims, stages = len(self.tile), len(self.features)
        strides = [[1] * dims, *([min(2, size // 4) or 1 for size in self.tile] for _ in range(stages - 1))]
        return {
            "network_class_name": UNET,
            "arch_kwargs": {
                "n_stages": stages, "features_per_stage": list(self.features), "strides": strides,
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d", "kernel_sizes": [[3] * dims] * stages,
                "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }  # fmt: skip

    def _checkpoint(self, fold: int, *, fit: bool) -> dict[str, Any]:
        heads = len(self.regions) if self.regions else self.classes
        inputs = len(self.channels) + (self.classes - 1 if self.previous else 0)
        network = _network(self._architecture(), inputs, heads, seed=fold)
        head = network.decoder.seg_layers[-1]
        if fit:
            _fit(network, head, self.tile, inputs, heads)
        else:
            head.weight.data *= 20  # else all logits are much the same
        return {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": self.configuration},
            "inference_allowed_mirroring_axes": tuple(range(len(self.tile))),
        }


def _network(architecture: dict[str, Any], inputs: int, heads: int, *, seed: int) -> Any:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_network_from_plans(
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"],
            inputs, heads, deep_supervision=False,
        )  # fmt: skip


def _fit(network: Any, head: Any, tile: Sequence[int], inputs: int, heads: int) -> None:
    """Set the last layer so that it tells blobs by their intensity, class by class evenly between -2 and 2."""
    labels, image = blobs(tile, heads, seed=1)
    image = (image - image.mean()) / image.std()  # as the z-score that it will see
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda _module, taken, _made: seen.append(taken[0]))
    with torch.no_grad():
        network(torch.from_numpy(image)[None, None].expand(1, inputs, *tile))
        hook.remove()
        features = seen[0][0].flatten(1).double()
        wanted = torch.nn.functional.one_hot(torch.from_numpy(labels).long().flatten(), heads).double() * 16 - 8
        known = torch.cat([features, torch.ones_like(features[:1])])
        solution = torch.linalg.solve(
            known @ known.T + 1e-3 * torch.eye(len(known), dtype=torch.double), known @ wanted
        )
        head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))
        head.bias.copy_(solution[-1])


def blobs(shape: Sequence[int], classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of soft-edged balls, and an image in which each class has an intensity of its own, mean 0 and spread 1."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    grid = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij", sparse=True)
    for value in range(1, classes):
        centre = [rng.uniform(0.15, 0.85) * size for size in shape]
        radius = [rng.uniform(0.08, 0.25) * size for size in shape]
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
        labels[distance < 1] = value
    image = np.linspace(-2, 2, classes, dtype=np.float32)[labels]
    image += rng.normal(scale=0.5 / classes, size=shape).astype(np.float32)
    return labels, image

"""nnU-Net's plans, as far as prediction reads them, under the host's names.

The host's own reader of plans imports every image format that there is, a fifth of what a small prediction costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from umamba_seg.errors import ModelError

USUAL_LABELS = "LabelManager"

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


class Configuration:
    """One configuration, with what it inherits from others.

    Args:
        content: Its entries.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.configuration = content
        self.patch_size: list[int] = content["patch_size"]
        self.spacing: list[float] = content["spacing"]
        self.normalization_schemes: list[str] = content["normalization_schemes"]
        self.use_mask_for_norm: list[bool] = content["use_mask_for_norm"]
        self.previous_stage_name: str | None = content.get("previous_stage")
        architecture = content["architecture"]
        self.network_arch_class_name: str = architecture["network_class_name"]
        self.network_arch_init_kwargs: dict[str, Any] = architecture["arch_kwargs"]
        self.network_arch_init_kwargs_req_import: list[str] = architecture["_kw_requires_import"]

    def resampling_fn(self, what: str) -> Callable[..., Any]:
        """nnU-Net's function for `data`, `seg` or `probabilities`, with its options."""
        from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

        function = recursive_find_resampling_fn_by_name(self.configuration[f"resampling_fn_{what}"])
        return partial(function, **self.configuration[f"resampling_fn_{what}_kwargs"])


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes of a data set, under the names that nnU-Net's label manager has for them.

    Args:
        num_segmentation_heads: Outputs of the network: all classes, or all regions.
        foreground_labels: Values but that of the background and of what is ignored.
        regions_class_order: Values to write for each region, each over those before; None without regions.
    """

    num_segmentation_heads: int
    foreground_labels: list[int]
    regions_class_order: list[int] | None

    @property
    def has_regions(self) -> bool:
        """Whether outputs overlap."""
        return self.regions_class_order is not None

    @classmethod
    def of(cls, dataset_json: Mapping[str, Any]) -> "Labels":
        """As `dataset.json` has them.

        Raises:
            ModelError: They make no sense.
        """
        named = {name: value for name, value in dataset_json["labels"].items() if name != "ignore"}
        values = {name: value if isinstance(value, list | tuple) else [value] for name, value in named.items()}
        every = sorted({int(value) for group in values.values() for value in group})
        foreground = [value for value in every if value != 0]
        if named.get("background") != 0:
            raise _senseless("the background must be 0")
        if dataset_json["labels"].get("ignore", every[-1] + 1) != every[-1] + 1:
            raise _senseless("what is ignored must have the highest value")
        if not any(len(group) > 1 for group in values.values()):
            return cls(len(every), foreground, None)
        regions = [group for group in values.values() if set(group) != {0}]
        order = dataset_json.get("regions_class_order")
        if order is None or len(order) != len(regions):
            raise _senseless("regions_class_order must have a value for each region")
        return cls(len(regions), foreground, list(order))


def _senseless(what: str) -> ModelError:
    return ModelError(f"its labels make no sense: {what}", where="dataset.json", code="bad-model")


class Plans:
    """The plans of a model.

    Args:
        plans: What `plans.json` holds.
    """

    def __init__(self, plans: dict[str, Any]) -> None:
        self.plans = plans
        self.transpose_forward: list[int] = plans["transpose_forward"]
        self.transpose_backward: list[int] = plans["transpose_backward"]

    @property
    def intensities(self) -> Mapping[str, Any]:
        """Of the foreground of the training data, by channel; under the old name too."""
        old, new = (f"foreground_intensity_properties_{by}" for by in ("by_modality", "per_channel"))
        found: Mapping[str, Any] = self.plans[new if new in self.plans else old]
        return found

    def get_configuration(self, name: str) -> Configuration:
        """A configuration with what it inherits.

        Raises:
            ModelError: There is none of this name, or it inherits from itself.
        """
        content: dict[str, Any] = {}
        visited: list[str] = []
        following: str | None = name
        while following is not None:
            if following in visited or following not in self.plans["configurations"]:
                fault = "it inherits from itself" if following in visited else f"there is no configuration {following}"
                raise ModelError(f"{name}: {fault}", where="plans.json", code="bad-model")
            visited.append(following)
            entries = self.plans["configurations"][following]
            content = {**entries, **content}
            following = entries.get("inherits_from")
        if "architecture" not in content:  # written before version 2.3
            from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

            content = ConfigurationManager(content).configuration
        return Configuration(content)

    def labels(self, dataset_json: Mapping[str, Any]) -> "Labels | LabelManager":
        """Which classes or regions there are; nnU-Net's own manager where the plans name another than the usual one.

        Raises:
            ModelError: They make no sense.
        """
        if self.plans.get("label_manager", USUAL_LABELS) == USUAL_LABELS:
            return Labels.of(dataset_json)
        return self.label_manager(dataset_json)

    def label_manager(self, dataset_json: Mapping[str, Any]) -> "LabelManager":
        """nnU-Net's, by the class that the plans name; importing it takes a fifth of a second."""
        from nnunetv2.utilities.label_handling.label_handling import get_labelmanager_class_from_plans

        kind = get_labelmanager_class_from_plans(self.plans)
        return kind(label_dict=dataset_json["labels"], regions_class_order=dataset_json.get("regions_class_order"))

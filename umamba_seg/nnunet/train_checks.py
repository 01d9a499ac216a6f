"""What must hold before a training begins."""

import json
from typing import Any

from umamba_seg.errors import DataError, UsageError, unknown
from umamba_seg.workspace import Dataset, read_json

HOST_FOLDS = 5


def load_plans(dataset: Dataset, name: str, configuration: str) -> dict[str, Any]:
    """Plans by name, after a look whether they hold the configuration."""
    file = dataset.preprocessed / f"{name}.json"
    if not file.is_file():
        there = sorted(path.stem for path in dataset.preprocessed.glob("*Plans*.json"))
        how = [f"make them with  umamba plan {dataset.id}"]
        raise unknown("plans", name, there, where=dataset.name, how=how)
    plans = read_json(file)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise DataError(
            "these are not nnU-Net plans: there is no block of configurations", where=str(file), code="bad-plans"
        )
    if configuration not in configurations:
        raise unknown("configuration", configuration, configurations, where=name)
    return plans


def check_fold(dataset: Dataset, plans: dict[str, Any], configuration: str, fold: int | str) -> int | str:
    """The fold as nnU-Net wants it. Upstream makes a random split of a fold that does not exist; we refuse it."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    data = dataset.preprocessed / PlansManager(plans).get_configuration(configuration).data_identifier
    cases = list(data.glob("*.pkl"))
    if not cases:
        how = [f"umamba plan {dataset.id} -c {configuration}  preprocesses them"]
        raise DataError("there are no preprocessed cases", where=str(data), how=how, code="not-preprocessed")
    if fold == "all":
        return fold
    splits = dataset.preprocessed / "splits_final.json"
    folds = len(json.loads(splits.read_bytes())) if splits.is_file() else HOST_FOLDS
    if not str(fold).isdecimal() or int(fold) >= folds:
        raise UsageError(f"the fold must be 0 to {folds - 1}, or all; got {fold}", where="FOLD", code="unknown-fold")
    if not splits.is_file() and len(cases) < HOST_FOLDS:
        how = ["train on  all", f"or  umamba splits {dataset.id} --folds {max(2, len(cases))}"]
        raise DataError(
            f"{len(cases)} cases cannot be split into {HOST_FOLDS} folds", where=dataset.name, how=how, code="few-cases"
        )
    return int(fold)


def check_numbers(**numbers: float | None) -> None:
    """Refuse what is not positive."""
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise UsageError(
                f"must be at least 1, got {number:g}", where=f"--{name.replace('_', '-')}", code="bad-number"
            )

"""Plans files: found by name or path, written only where they are new or their replacement is asked for."""

import json
from pathlib import Path
from typing import Any

from umamba_seg.errors import DataError, UsageError, unknown
from umamba_seg.files import write_text
from umamba_seg.workspace import Dataset, read_json


def plans_file(dataset: Dataset, plans_name: str) -> Path:
    """Where nnU-Net looks for plans of this name."""
    return dataset.preprocessed / f"{plans_name}.json"


def read_plans(text: str, dataset: Dataset | None, *, where: str) -> dict[str, Any]:
    """Plans by the path of their file, or by their name in the data set's folder."""
    path = Path(text)
    if not path.is_file():
        if dataset is None:
            what = f"there is no file {text!r}"
            raise UsageError(what, where=where, how=["with DATASET, plans are found by their name"], code="no-plans")
        path = plans_file(dataset, text.removesuffix(".json"))
    if not path.is_file():
        assert dataset is not None
        raise unknown("plans file", text, plans_names(dataset), where=where)
    return _checked(read_json(path), path)


def plans_names(dataset: Dataset) -> list[str]:
    """Names of all plans of the data set."""
    return sorted(file.stem for file in dataset.preprocessed.glob("*.json") if "configurations" in read_json(file))


def write_plans(plans: dict[str, Any], file: Path, *, overwrite: bool) -> str:
    """Write plans unless the same are there; configurations that a user added to the file stay."""
    if file.is_file():
        old = _checked(read_json(file), file)
        added = {name: entry for name, entry in old["configurations"].items() if name not in plans["configurations"]}
        plans = {**plans, "configurations": {**plans["configurations"], **added}}
        if plans == old:
            return "unchanged"
        if not overwrite:
            how = [
                "--plans-name NAME keeps both",
                "--overwrite replaces it; models trained with the old plans keep their own copy",
            ]
            raise UsageError("plans of this name are there and differ", where=str(file), how=how, code="plans-exist")
    write_text(file, json.dumps(plans, indent=4))
    return "written"


def _checked(plans: dict[str, Any], file: Path) -> dict[str, Any]:
    missing = [key for key in ("plans_name", "dataset_name", "configurations") if key not in plans]
    if missing or not isinstance(plans["configurations"], dict):
        what = f"these are not nnU-Net plans: {', '.join(missing) or 'configurations'} missing or of another kind"
        raise DataError(what, where=str(file), code="bad-plans")
    return plans

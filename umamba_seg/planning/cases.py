"""The training cases of a data set, as nnU-Net finds them."""

from typing import Any

from umamba_seg.errors import DataError
from umamba_seg.workspace import Dataset


def training_cases(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Of each training case the files of its `images` and of its `label`."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    if not dataset.raw.is_dir():
        how = [f"copy or link the raw data to {dataset.raw}"]
        raise DataError(
            "the raw data of this data set are not there", where=str(dataset.raw), how=how, code="no-raw-data"
        )
    found = get_filenames_of_train_images_and_targets(str(dataset.raw), dataset.description())
    if not found:
        how = ["put images into imagesTr as CASE_0000 and their labels into labelsTr as CASE, with the declared ending"]
        raise DataError("no training case is there", where=str(dataset.raw), how=how, code="no-cases")
    return {case: found[case] for case in sorted(found)}

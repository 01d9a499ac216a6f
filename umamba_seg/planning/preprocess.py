"""nnU-Net's preprocessing, run only for what is not there yet.

Upstream's function deletes the folder it fills, and our plans share folders with nnU-Net's own. So a complete folder is
used as it is, and one that lacks cases is replaced only when the user says so.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from umamba_seg.errors import DataError, UsageError
from umamba_seg.progress import OnProgress, Progress
from umamba_seg.workspace import Dataset

State = Literal["made", "reused"]
_SECONDS_BETWEEN_LOOKS = 1.0


def preprocess(
    dataset: Dataset,
    plans_name: str,
    configuration: str,
    folder: Path,
    *,
    processes: int,
    overwrite: bool,
    report: OnProgress,
) -> State:
    """Preprocess one configuration into `folder`, or find that it is done."""
    cases = training_cases(dataset)
    missing = [case for case in cases if not (folder / f"{case}.pkl").is_file()]
    if not missing:
        return "reused"
    if folder.exists() and not overwrite:
        raise _incomplete(folder, len(missing), len(cases))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    with _watching(folder, len(cases), Progress(f"preprocess {configuration}", 0, len(cases), "cases"), report):
        preprocess_dataset(dataset.id, plans_name, [configuration], [processes], show_progress_bar=False)
    return "made"


def training_cases(dataset: Dataset) -> list[str]:
    """Identifiers of the training cases, as nnU-Net finds them in the raw folder."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    cases = sorted(get_filenames_of_train_images_and_targets(str(dataset.raw), dataset.description()))
    if not cases:
        how = ["put images into imagesTr as CASE_0000 and their labels into labelsTr as CASE, with the declared ending"]
        raise DataError("no training case is there", where=str(dataset.raw), how=how, code="no-cases")
    return cases


def _incomplete(folder: Path, missing: int, wanted: int) -> UsageError:
    how = ["--overwrite makes it anew; other plans may be using what is there"]
    what = f"{missing} of {wanted} cases are not preprocessed: the raw data have grown, or an earlier run was cut off"
    return UsageError(what, where=str(folder), how=how, code="preprocessed-incomplete")


@contextmanager
def _watching(folder: Path, wanted: int, first: Progress, report: OnProgress) -> Iterator[None]:
    """Report the number of finished cases while the block runs; upstream offers no other sign of life."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            report(Progress(first.step, min(wanted, len(list(folder.glob("*.pkl")))), wanted, first.unit))

    report(first)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    report(Progress(first.step, wanted, wanted, first.unit))

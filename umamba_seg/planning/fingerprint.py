"""The fingerprint of a data set: extracted where there is none, or where the raw data are not those it was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from umamba_seg.errors import DataError, UmambaError
from umamba_seg.planning.provenance import Notes
from umamba_seg.progress import OnProgress, Progress
from umamba_seg.workers import told_of_deaths
from umamba_seg.workspace import Dataset, read_json

FILE = "dataset_fingerprint.json"


def fingerprint(
    dataset: Dataset, cases: Mapping[str, Mapping[str, Any]], processes: int, report: OnProgress
) -> Literal["made", "reused"]:
    """See to it that the data set has a fingerprint of these cases."""
    notes = Notes.read(dataset)
    if _is_current(dataset.preprocessed / FILE, cases, notes):
        return "reused"
    report(Progress("fingerprint", 0, len(cases), "cases"))
    _extract(dataset, processes)
    notes.fingerprint = {name: notes.content_of(case) for name, case in cases.items()}
    notes.write()
    report(Progress("fingerprint", len(cases), len(cases), "cases"))
    return "made"


def _is_current(file: Path, cases: Mapping[str, Mapping[str, Any]], notes: Notes) -> bool:
    if not file.is_file():
        return False
    if notes.fingerprint:
        return notes.fingerprint == {name: notes.content_of(case) for name, case in cases.items()}
    made, spacings = file.stat().st_mtime_ns, read_json(file).get("spacings")
    return (
        isinstance(spacings, list)
        and len(spacings) == len(cases)
        and all(
            Path(raw).stat().st_mtime_ns <= made for case in cases.values() for raw in (*case["images"], case["label"])
        )
    )


def _extract(dataset: Dataset, processes: int) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    fewer = f"-j {max(1, processes // 2)}"
    try:
        with told_of_deaths("reading the cases", where=dataset.name, fewer=fewer, stays="nothing is written yet"):
            extract_fingerprint_dataset(
                dataset.id,
                num_processes=processes,
                check_dataset_integrity=True,
                clean=True,
                verbose=False,
                show_progress_bar=False,
            )
    except UmambaError:
        raise
    except (RuntimeError, ValueError, AssertionError, OSError) as fault:
        reason = str(fault).strip().splitlines()[-1] if str(fault).strip() else type(fault).__name__
        how = ["-v shows what nnU-Net found, case by case"]
        raise DataError(
            f"nnU-Net cannot use the data: {reason}", where=dataset.name, how=how, code="bad-data"
        ) from fault

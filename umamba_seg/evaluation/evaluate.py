"""`umamba evaluate`: predictions against references, case by case and class by class."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from umamba_seg.errors import DataError
from umamba_seg.evaluation.measures import NAMES, Measures, measure
from umamba_seg.evaluation.statistics import Interval, mean_with_interval
from umamba_seg.files import write_text
from umamba_seg.progress import OnProgress, Progress, ignore

SUMMARY, OURS = "summary.json", "umamba_evaluation.json"
Classes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of all cases.

    Args:
        cases: By case and class.
        means: By class and measure.
        overall: The mean over cases of the mean over classes, by measure.
        missing: Cases that have a reference and no prediction.
    """

    cases: Mapping[str, Mapping[str, Measures]]
    means: Mapping[str, Mapping[str, Interval]]
    overall: Mapping[str, Interval]
    missing: tuple[str, ...]
    patients: Mapping[str, str]

    def values(self, measure_name: str, of_class: str | None = None) -> dict[str, float]:
        """One measure of every case: of a class, or the mean over classes."""
        if of_class is not None:
            return {case: getattr(classes[of_class], measure_name) for case, classes in self.cases.items()}
        return {case: _mean([getattr(m, measure_name) for m in found.values()]) for case, found in self.cases.items()}


def evaluate(
    references: Path,
    predictions: Path,
    classes: Classes,
    *,
    ending: str = ".nii.gz",
    ignore_label: int | None = None,
    tolerances: Mapping[str, float] | None = None,
    patients: Mapping[str, str] | None = None,
    processes: int = 1,
    report: OnProgress = ignore,
) -> Evaluation:
    """Judge a folder of label maps by a folder of references.

    Args:
        references: One file for each case.
        predictions: Of the same names; those without a reference are not looked at.
        classes: Name and values of each class or region.
        ending: Of the files.
        ignore_label: Reference voxels that count for nothing.
        tolerances: Of NSD by class, in mm; 2 where none is named.
        patients: Whose each case is; scans of one patient are resampled together.
        processes: How many cases are read at once.
        report: Told how far it is.
    """
    names = sorted(path.name for path in references.glob(f"*{ending}"))
    if not names:
        raise DataError(f"no reference ends in {ending!r}", where=str(references), code="no-references")
    there = [name for name in names if (predictions / name).is_file()]
    if not there:
        how = ["predictions have the names of the references"]
        raise DataError(
            "no prediction is there for any reference", where=str(predictions), how=how, code="no-predictions"
        )
    jobs = [
        (references / name, predictions / name, dict(classes), ignore_label, dict(tolerances or {})) for name in there
    ]
    found: dict[str, dict[str, Measures]] = {}
    report(Progress("evaluate", 0, len(jobs), "cases"))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) if processes > 1 else _Here() as pool:
        for done, (name, measures) in enumerate(zip(there, pool.map(_of_case, jobs), strict=True), 1):
            found[name.removesuffix(ending)] = measures
            report(Progress("evaluate", done, len(jobs), "cases"))
    missing = tuple(name.removesuffix(ending) for name in names if name not in there)
    made = Evaluation(found, {}, {}, missing, dict(patients or {}))
    means = {c: {m: mean_with_interval(made.values(m, c), patients) for m in NAMES} for c in classes}
    overall = {m: mean_with_interval(made.values(m), patients) for m in NAMES}
    return Evaluation(found, means, overall, missing, dict(patients or {}))


class _Here:
    """A pool of no processes."""

    map = staticmethod(map)

    def __enter__(self) -> "_Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _of_case(job: tuple[Path, Path, Classes, int | None, Mapping[str, float]]) -> dict[str, Measures]:
    import SimpleITK

    reference_file, predicted_file, classes, ignored, tolerances = job
    images = [SimpleITK.ReadImage(str(path)) for path in (reference_file, predicted_file)]
    reference, predicted = (SimpleITK.GetArrayFromImage(image) for image in images)
    if reference.shape != predicted.shape:
        raise DataError(
            f"the prediction has {'×'.join(map(str, predicted.shape))} voxels, "
            f"the reference {'×'.join(map(str, reference.shape))}",
            where=predicted_file.name, code="shape-mismatch",
        )  # fmt: skip
    counts = np.ones(reference.shape, bool) if ignored is None else reference != ignored
    spacing = images[0].GetSpacing()[::-1]
    return {
        name: measure(
            np.isin(reference, values) & counts, np.isin(predicted, values) & counts, spacing, tolerances.get(name, 2.0)
        )
        for name, values in classes.items()
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def classes_of(description: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Classes or regions of a dataset.json, without background; and the ignore label."""
    labels = dict(description["labels"])
    ignored = labels.pop("ignore", None)
    labels.pop("background", None)
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in labels.items()}, ignored


def write(evaluation: Evaluation, folder: Path) -> Path:
    """Write all measures, so that `compare` can read them."""
    content = {
        "cases": {case: {c: asdict(m) for c, m in found.items()} for case, found in evaluation.cases.items()},
        "means": {c: {m: asdict(i) for m, i in found.items()} for c, found in evaluation.means.items()},
        "overall": {m: asdict(i) for m, i in evaluation.overall.items()},
        "missing": list(evaluation.missing),
        "patients": dict(evaluation.patients),
    }
    file = folder / OURS
    write_text(file, json.dumps(_plain(content), indent=1))
    return file


def read(path: Path) -> Evaluation:
    """What `write` wrote; a file, or the folder that it is in."""
    file = path / OURS if path.is_dir() else path
    if not file.is_file():
        how = ["umamba evaluate REFERENCES PREDICTIONS  makes it"]
        raise DataError("there is no evaluation", where=str(path), how=how, code="no-evaluation")
    content = json.loads(file.read_bytes())
    cases = {
        case: {c: Measures(**{k: _number(v) for k, v in m.items()}) for c, m in found.items()}
        for case, found in content["cases"].items()
    }
    return Evaluation(cases, {}, {}, tuple(content["missing"]), content["patients"])


def _plain(x: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _number(x: Any) -> Any:
    return math.nan if x is None else x

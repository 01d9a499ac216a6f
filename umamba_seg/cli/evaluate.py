"""`umamba evaluate` and `umamba compare`."""

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import JobsOption
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError

if TYPE_CHECKING:
    from umamba_seg.evaluation.evaluate import Evaluation
    from umamba_seg.evaluation.statistics import Interval

SHOWN = {"dice": ("Dice", 3), "nsd": ("NSD", 3), "hd95": ("HD95 mm", 2), "assd": ("ASSD mm", 2)}
BETTER_WHEN_HIGHER = {"dice": True, "nsd": True, "hd95": False, "assd": False}


def register(app: typer.Typer) -> None:
    """Add both commands."""
    command(
        app, "evaluate", examples=("umamba evaluate labelsTs predictions", "umamba evaluate labelsTs out --nsd-mm 1")
    )(evaluate)
    command(app, "compare", examples=("umamba compare out_twin out_umamba", "umamba compare a b c --metric nsd"))(
        compare
    )


def evaluate(
    out: Output,
    references: Annotated[Path, typer.Argument(help="Folder of reference label maps.", metavar="REF")],
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions of the same names.", metavar="PRED")],
    description: Annotated[
        Path | None, typer.Option("--dataset-json", help="Names of classes. Default: beside REF or in PRED.")
    ] = None,
    nsd_mm: Annotated[float, typer.Option(help="Tolerance of NSD in mm.")] = 2.0,
    group: Annotated[str | None, typer.Option(help="File of case,patient, or an expression for the patient.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every case's measures to a table.")] = None,
    jobs: JobsOption = None,
) -> Payload:
    """Measure predictions: Dice, surface Dice and distances of each case and class, means with 95 % intervals."""
    from umamba_seg.datasets.splits import read_patients
    from umamba_seg.device import cores
    from umamba_seg.evaluation.evaluate import classes_of, write
    from umamba_seg.evaluation.evaluate import evaluate as judge
    from umamba_seg.workspace import read_json

    file = _description(description, references, predictions)
    content = read_json(file)
    classes, ignored = classes_of(content)
    ending = str(content.get("file_ending", ".nii.gz"))
    cases = sorted(path.name.removesuffix(ending) for path in references.glob(f"*{ending}"))
    patients = read_patients(group, cases) if group else None
    result = judge(
        references,
        predictions,
        classes,
        ending=ending,
        ignore_label=ignored,
        tolerances=dict.fromkeys(classes, nsd_mm),
        patients=patients,
        processes=jobs or min(8, cores()),
        report=out.progress,
    )
    written = write(result, predictions)
    if csv is not None:
        _write_table(result, csv)
    _show(out, result)
    if result.missing:
        out.warn(f"{len(result.missing)} references have no prediction: {', '.join(result.missing[:3])}")
    return {
        "file": str(written),
        "cases": len(result.cases),
        "missing": list(result.missing),
        "means": {c: {m: _interval(i) for m, i in found.items()} for c, found in result.means.items()},
        "overall": {m: _interval(i) for m, i in result.overall.items()},
    }


def compare(
    out: Output,
    results: Annotated[
        list[Path], typer.Argument(help="Folders that umamba evaluate has judged, or its files.", metavar="RESULT…")
    ],
    metric: Annotated[str, typer.Option(help="dice, nsd, hd95 or assd.")] = "dice",
    test: Annotated[str, typer.Option(help="permutation or wilcoxon.")] = "permutation",
    margin: Annotated[float, typer.Option(help="Points of 100 within which methods count as equal.")] = 0.5,
) -> Payload:
    """Compare methods on the cases they share: paired differences with 95 % intervals, and a verdict in words."""
    from umamba_seg.evaluation.evaluate import read
    from umamba_seg.evaluation.statistics import compare as judge
    from umamba_seg.evaluation.statistics import holm

    if len(set(results)) < 2:
        raise UsageError("a comparison needs two results", where="RESULT", code="one-result")
    if metric not in SHOWN or test not in ("permutation", "wilcoxon"):
        raise UsageError(f"there is no {metric!r} with {test!r}", where="--metric, --test", code="unknown-metric")
    read_results = {str(path): read(path) for path in results}
    rows = []
    for first, second in combinations(read_results, 2):
        a, b = read_results[first], read_results[second]
        only = set(a.cases) ^ set(b.cases)
        if only:
            out.warn(f"{first} and {second} differ in {len(only)} cases; compared are the others")
        found = judge(
            a.values(metric),
            b.values(metric),
            patients=a.patients,
            test="wilcoxon" if test == "wilcoxon" else "permutation",
            higher_is_better=BETTER_WHEN_HIGHER[metric],
            margin=margin / 100,
        )
        rows.append((first, second, found))
    adjusted = holm([found.p for _, _, found in rows])
    from rich.table import Table

    table = Table("first", "second", "second - first", "95 %", "p (Holm)", "wins/ties/losses", "n", "verdict", box=None)
    for (first, second, found), p in zip(rows, adjusted, strict=True):
        i = found.interval
        table.add_row(
            first, second, f"{i.mean:+.4f}", f"{i.low:+.4f} to {i.high:+.4f}", f"{p:.3g}",
            f"{found.wins}/{found.ties}/{found.losses}", str(i.count), found.verdict,
        )  # fmt: skip
    out.show(table)
    return {
        "metric": metric,
        "comparisons": [
            {
                "first": first,
                "second": second,
                "difference": _interval(found.interval),
                "p": None if math.isnan(found.p) else found.p,
                "p_holm": None if math.isnan(p) else p,
                "wins": found.wins,
                "ties": found.ties,
                "losses": found.losses,
                "verdict": found.verdict,
            }
            for (first, second, found), p in zip(rows, adjusted, strict=True)
        ],
    }


def _description(given: Path | None, references: Path, predictions: Path) -> Path:
    for folder in (references, predictions):
        if not folder.is_dir():
            raise UsageError("there is no such folder", where=str(folder), code="no-folder")
    places = [given] if given else [references.parent / "dataset.json", predictions / "dataset.json"]
    for place in places:
        if place is not None and place.is_file():
            return place
    how = ["--dataset-json FILE"]
    raise DataError("no dataset.json names the classes", where=str(references.parent), how=how, code="no-dataset-json")


def _interval(interval: "Interval") -> dict[str, float | int | None]:
    def number(x: float) -> float | None:
        return x if math.isfinite(x) else None

    return {
        "mean": number(interval.mean),
        "low": number(interval.low),
        "high": number(interval.high),
        "n": interval.count,
    }


def _show(out: Output, result: "Evaluation") -> None:
    from rich.table import Table

    table = Table("class", "n", *(heading for heading, _ in SHOWN.values()), box=None, pad_edge=False)
    for name, means in [*result.means.items(), ("mean", result.overall)]:
        cells = [
            f"{means[m].mean:.{digits}f} ({means[m].low:.{digits}f}–{means[m].high:.{digits}f})"
            for m, (_, digits) in SHOWN.items()
        ]
        table.add_row(name, str(means["dice"].count), *cells)
    out.show(table)


def _write_table(result: "Evaluation", file: Path) -> None:
    import csv
    import io

    from umamba_seg.evaluation.measures import NAMES
    from umamba_seg.files import write_text

    lines: list[tuple[str, ...]] = [("case", "class", *NAMES, "reference_ml", "predicted_ml")]
    for case, classes in result.cases.items():
        for name, m in classes.items():
            numbers = [getattr(m, field) for field in (*NAMES, "reference_ml", "predicted_ml")]
            lines.append((case, name, *("" if math.isnan(x) else f"{x:.6g}" for x in numbers)))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(file, text.getvalue())

"""`umamba check`: every file of a data set read once, in parallel; all faults of all cases in one list."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from umamba_seg.datasets.check import geometry, held_out, memory, pictures, values, whole_set
from umamba_seg.datasets.check.facts import CaseFacts, measure_case
from umamba_seg.datasets.check.layout import Layout, look
from umamba_seg.datasets.findings import Finding, Report, in_order
from umamba_seg.errors import DataError
from umamba_seg.files import write_text
from umamba_seg.progress import OnProgress, Progress, ignore

ACCEPTED = "umamba_accept.json"


def check(
    folder: Path,
    *,
    preprocessed: Path | None = None,
    quick: bool = False,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    accept: Collection[str] = (),
    test: Path | None = None,
    processes: int = 1,
    free_memory: float | None = None,
    report: OnProgress = ignore,
) -> Report:
    """Look for faults in a raw data set.

    Args:
        folder: Of the data set.
        preprocessed: Its folder below nnUNet_preprocessed, where folds and acceptances are; None for none.
        quick: Names and headers only.
        only: Codes to look for; empty means all. So is `skip`, for codes to leave out.
        accept: `CODE` or `CODE:CASE`: findings to set aside, now and in later calls.
        test: A folder of test images to look at too.
        processes: How many cases are read at once.
        free_memory: Bytes that preprocessing may take; None looks for no case that takes more.
        report: Told how far it is.
    """
    began = time.monotonic()
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), how=["umamba check ID"], code="no-raw-data")
    layout = look(folder)
    labels = _labels(layout.description)
    facts = list(_measured(layout, quick, processes, report))
    findings = [*layout.findings, *_of_cases(facts, layout, labels)]
    if not quick:
        findings += whole_set.faults(facts, layout.channels, _names(labels), _ignore(labels))
    if test is not None:
        tests = held_out.look(test, layout)
        findings += held_out.faults(tests, list(_measured(tests, quick, processes, report)), facts)
    if free_memory is not None:
        findings += memory.faults(facts, len(layout.channels), free_memory)
    patients = layout.description.get("patients")
    splits = None if preprocessed is None else preprocessed / "splits_final.json"
    if splits is not None and splits.is_file():
        findings += whole_set.split_faults(
            splits, sorted(layout.images), patients if isinstance(patients, dict) else {}
        )
    findings = [x for x in findings if (not only or x.code in only) and x.code not in skip]
    accepted = _accepted(preprocessed, accept)
    kept = [finding for finding in findings if not _is_accepted(finding, accepted)]
    return Report(
        folder.name,
        len(layout.images),
        layout.channels,
        labels,
        in_order(kept),
        in_order(finding for finding in findings if _is_accepted(finding, accepted)),
        round(time.monotonic() - began, 2),
        _summary(facts),
    )


def _labels(description: Mapping[str, Any]) -> dict[str, Any]:
    labels = description.get("labels")
    return dict(labels) if isinstance(labels, dict) else {}


def _declared(labels: Mapping[str, Any]) -> list[int]:
    found = set()
    for value in labels.values():
        found |= {x for x in (value if isinstance(value, list) else [value]) if isinstance(x, int)}
    return sorted(found)


def _names(labels: Mapping[str, Any]) -> dict[int, str]:
    return {value: name for name, value in labels.items() if isinstance(value, int)}


def _ignore(labels: Mapping[str, Any]) -> int | None:
    value = labels.get("ignore")
    return value if isinstance(value, int) else None


def _measured(layout: Layout, quick: bool, processes: int, report: OnProgress) -> Iterator[CaseFacts]:
    """The facts of every case, in the order of their names."""
    cases = sorted(layout.images)
    is_ct = "CT" in layout.channels
    jobs = [(case, layout.images[case], layout.labels.get(case)) for case in cases]
    report(Progress("check", 0, len(cases), "cases"))
    if processes <= 1 or len(cases) < 2 * processes:
        for done, job in enumerate(jobs, 1):
            yield measure_case(*job, with_values=not quick, is_ct=is_ct)
            report(Progress("check", done, len(cases), "cases"))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure_case, *job, with_values=not quick, is_ct=is_ct): job[0] for job in jobs}
        for done, _ in enumerate(as_completed(futures), 1):
            report(Progress("check", done, len(cases), "cases"))
        yield from (future.result() for future in futures)


def _of_cases(facts: list[CaseFacts], layout: Layout, labels: Mapping[str, Any]) -> Iterator[Finding]:
    declared, names = _declared(labels), _names(labels)
    for case in facts:
        yield from geometry.faults(case, layout.folder.name)
        yield from pictures.faults(case, layout.channels, declared)
        yield from values.image_faults(case, layout.channels, declared)
        yield from values.label_faults(case, declared, names)


def _summary(facts: list[CaseFacts]) -> dict[str, Any]:
    spacings = [case.images[0].spacing for case in facts if 0 in case.images and not case.images[0].fault]
    if not spacings:
        return {}
    axes = list(zip(*spacings, strict=True))
    return {"spacing": [[min(axis), max(axis)] for axis in axes]}


def _accepted(preprocessed: Path | None, more: Collection[str]) -> set[str]:
    known = accepted_before(preprocessed)
    if preprocessed is not None and not set(more) <= known:
        preprocessed.mkdir(parents=True, exist_ok=True)
        write_text(preprocessed / ACCEPTED, json.dumps(sorted(known | set(more)), indent=1))
    return known | set(more)


def accepted_before(preprocessed: Path | None) -> set[str]:
    """What the user has set aside: `CODE` or `CODE:CASE`."""
    file = None if preprocessed is None else preprocessed / ACCEPTED
    return set(json.loads(file.read_bytes())) if file is not None and file.is_file() else set()


def _is_accepted(finding: Finding, accepted: set[str]) -> bool:
    if finding.code in accepted:
        return True
    return bool(finding.cases) and all(f"{finding.code}:{case}" in accepted for case in finding.cases)

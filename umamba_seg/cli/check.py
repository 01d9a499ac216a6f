"""`umamba check`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DatasetArgument,
    JobsOption,
    OverwriteOption,
    WorkspaceOption,
    introduce_workspace,
)
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError
from umamba_seg.workspace import Workspace

if TYPE_CHECKING:
    from umamba_seg.datasets.findings import Finding, Report
    from umamba_seg.datasets.fix.run import Offer

MOST_CASES, MOST_PROCESSES = 3, 8
HIGHEST_ID = 999


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("umamba check 12", "umamba check ./Dataset012_Liver --html findings.html --overlay pictures")
    command(app, "check", examples=examples)(check)


def check(
    out: Output,
    dataset: DatasetArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Names and headers only.")] = False,
    accept: Annotated[
        list[str] | None, typer.Option(help="CODE or CODE:CASE to set aside, from now on; may be repeated.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Code to look for; may be repeated.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Code to leave out; may be repeated.")] = None,
    test: Annotated[Path | None, typer.Option(help="Folder of test images to check too.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the findings as one page to read.", rich_help_panel="Output")
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option("--overlay", help="Folder for a picture of each case at fault.", rich_help_panel="Output"),
    ] = None,
    overwrite: OverwriteOption = False,
    jobs: JobsOption = None,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Look for faults in a raw data set. Reads everything, changes nothing."""
    from umamba_seg.datasets.check.run import check as look
    from umamba_seg.planning.estimate import free_memory

    place = introduce_workspace(out, workspace)
    raw, preprocessed = find_raw(dataset, place)
    _refuse_to_replace(html, "--html", overwrite)
    report = look(
        raw,
        preprocessed=preprocessed,
        quick=quick,
        only=only or (),
        skip=skip or (),
        accept=accept or (),
        test=test,
        processes=jobs_or_cores(jobs),
        free_memory=free_memory(),
        report=out.progress,
    )
    mending = show(out, report, raw)
    pictures = {} if overlays is None else _draw(out, report, raw, overlays, overwrite)
    if html is not None:
        _write_page(report, html, pictures)
    errors, warnings = report.count("error"), report.count("warning")
    has_failed = errors > 0 or (strict and warnings > 0)
    return {
        "dataset": {
            "name": report.dataset,
            "cases": report.cases,
            "channels": list(report.channels),
            "labels": dict(report.labels),
        },
        "findings": [
            finding.as_dict() | {"fix": _as_dict(report.dataset, finding, offer)}
            for finding, offer in zip(report.findings, mending, strict=True)
        ],
        "accepted": [finding.as_dict() for finding in report.accepted],
        "summary": {"error": errors, "warning": warnings},
        "pictures": [str(picture) for picture in pictures.values()],
        "exit_code": DataError.exit_code if has_failed else 0,
    }


def find_raw(dataset: str, place: Workspace) -> tuple[Path, Path | None]:
    """The raw folder of a data set of the workspace, or one that lies elsewhere, and the folder of its folds if any."""
    from umamba_seg.workspace import find_dataset

    folder = Path(dataset)
    try:
        found = find_dataset(dataset, place)
    except UsageError:
        if (folder / "dataset.json").is_file() or (folder / "imagesTr").is_dir():
            return folder.resolve(), None
        raise
    return found.raw, found.preprocessed


def jobs_or_cores(jobs: int | None) -> int:
    """How many cases to read at once."""
    from umamba_seg.device import cores

    return jobs or min(MOST_PROCESSES, cores())


def show(out: Output, report: "Report", raw: Path) -> "list[Offer | None]":
    """Print what was found, and return what `umamba fix` can do about each finding."""
    from rich.table import Table

    from umamba_seg.datasets.fix.run import offers

    mending = offers(raw, report.findings)
    channels = ", ".join(report.channels) or "no channel"
    spacing = " × ".join(f"{low:.3g}–{high:.3g}" for low, high in report.facts.get("spacing", []))
    classes = sum(name not in ("background", "ignore") for name in report.labels)
    out.line(
        f"{report.dataset}   {report.cases} cases, {channels}, {classes} classes{f', {spacing} mm' if spacing else ''}"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding, offer in zip(report.findings, mending, strict=True):
        table.add_row(
            finding.severity, _cases(finding) or ", ".join(finding.files), finding.code, _words(finding, offer)
        )
    if report.findings:
        out.show(table)
    aside = f", {len(report.accepted)} accepted" if report.accepted else ""
    out.line(
        f"{report.count('error')} errors, {report.count('warning')} warnings{aside} in {report.seconds:.1f} s"
        f"{_way_out(report, mending)}"
    )
    return mending


def _cases(finding: "Finding") -> str:
    more = len(finding.cases) - MOST_CASES
    return ", ".join(finding.cases[:MOST_CASES]) + (f" and {more} more" if more > 0 else "")


def _words(finding: "Finding", offer: "Offer | None") -> str:
    way = f"; mend: {finding.mend}" if finding.mend else ""
    if offer is None:
        return finding.message + way
    return f"{finding.message}{way}; fix: {'safe' if offer.is_safe else f'--apply {finding.code}:{offer.action}'}"


def _way_out(report: "Report", mending: "Sequence[Offer | None]") -> str:
    safe = sum(offer is not None and offer.is_safe for offer in mending)
    choices = sum(offer is not None and not offer.is_safe for offer in mending)
    if not safe + choices:
        return ""
    parts = [f"{safe} safe change{'s' * (safe != 1)}"] * (safe > 0) + [
        f"{choices} need{'s' * (choices == 1)} your word"
    ] * (choices > 0)
    return f".   mend: {_command(report.dataset)} ({', '.join(parts)})"


def _command(dataset: str) -> str:
    found = re.match(r"Dataset(\d{3})_", dataset)
    number = None if found is None else int(found[1])
    if number is None or number + 100 > HIGHEST_ID:
        return f"umamba fix {dataset if number is None else number} --out ID"
    return f"umamba fix {number} --out {number + 100}"


def _as_dict(dataset: str, finding: "Finding", offer: "Offer | None") -> dict[str, object] | None:
    if offer is None:
        return None
    apply = "" if offer.is_safe else f" --apply {finding.code}:{offer.action}"
    return {"safe": offer.is_safe, "action": offer.action, "command": f"{_command(dataset)}{apply}"}


def _refuse_to_replace(file: Path | None, option: str, overwrite: bool) -> None:
    if file is not None and file.exists() and not overwrite:
        raise UsageError("the file is there", where=f"{option} {file}", how=["--overwrite replaces it"], code="exists")


def _write_page(report: "Report", file: Path, pictures: dict[str, Path]) -> None:
    from umamba_seg.datasets.check.page import page
    from umamba_seg.files import write_text

    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page(report, {case: picture.read_bytes() for case, picture in pictures.items()}))


def _draw(out: Output, report: "Report", raw: Path, folder: Path, overwrite: bool) -> dict[str, Path]:
    """A picture of each case at fault, where its image and label can be read."""
    from umamba_seg.datasets.check.layout import look
    from umamba_seg.progress import Progress

    layout = look(raw)
    codes = {case: codes for case, codes in _codes(report) if case in layout.images and 0 in layout.images[case]}
    pictures: dict[str, Path] = {}
    for done, (case, found) in enumerate(codes.items()):
        out.progress(Progress("overlay", done, len(codes), "cases"))
        picture = folder / f"{case}.png"
        _refuse_to_replace(picture, "--overlay", overwrite)
        try:
            _draw_case(layout.images[case][0], layout.labels.get(case), picture, f"{case}: {found}", report)
        except _NotDrawnError as reason:
            out.remark(f"no picture of {case}: {reason}")
            continue
        pictures[case] = picture
        out.line(str(picture))
    out.progress(Progress("overlay", len(codes), len(codes), "cases"))
    return pictures


def _codes(report: "Report") -> Iterator[tuple[str, str]]:
    for case in dict.fromkeys(case for finding in report.findings for case in finding.cases):
        yield case, ", ".join(dict.fromkeys(x.code for x in report.findings if case in x.cases))


class _NotDrawnError(Exception):
    """Why a case has no picture."""


def _draw_case(image: Path, label: Path | None, picture: Path, title: str, report: "Report") -> None:
    import numpy as np

    from umamba_seg.datasets.check.facts import LPS, measure
    from umamba_seg.inference.preview import axis_ends, overlay

    if label is None:
        raise _NotDrawnError("it has no label")
    facts, pixels = measure(image, True, is_label=False)
    label_facts, values = measure(label, True, is_label=True)
    if pixels is None or values is None:
        raise _NotDrawnError(facts.fault or label_facts.fault)
    if facts.is_coloured:
        pixels = pixels.mean(-1).T
    if values.shape != pixels.shape or pixels.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise _NotDrawnError("image and label have other shapes")
    lengths = np.nan_to_num(np.array(facts.spacing[: pixels.ndim]))
    directions = (LPS @ facts.affine)[:3, :3] / np.array(facts.spacing)
    overlay(
        np.abs(pixels).T if pixels.dtype.kind == "c" else pixels.T,
        np.rint(np.nan_to_num(values.T.astype(float), posinf=0, neginf=0)).clip(0).astype(np.int64),
        np.where(lengths > 0, lengths, 1.0)[::-1].tolist(),
        picture,
        label_names={value: name for name, value in report.labels.items() if isinstance(value, int)},
        title=title,
        ends=axis_ends(directions.ravel().tolist()) if np.isfinite(directions).all() and pixels.ndim == 3 else None,
    )

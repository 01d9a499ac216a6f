"""`umamba check`."""

from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DatasetArgument, JobsOption, WorkspaceOption, introduce_workspace
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError

if TYPE_CHECKING:
    from umamba_seg.datasets.findings import Report

MOST_CASES = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("umamba check 12", "umamba check Dataset012_Liver --json --strict > findings.json")
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
    jobs: JobsOption = None,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Look for faults in a raw data set. Reads everything, changes nothing."""
    from umamba_seg.datasets.check.run import check as look
    from umamba_seg.device import cores
    from umamba_seg.workspace import find_dataset

    place = introduce_workspace(out, workspace)
    found = find_dataset(dataset, place)
    report = look(
        found.raw,
        preprocessed=found.preprocessed,
        quick=quick,
        only=only or (),
        skip=skip or (),
        accept=accept or (),
        processes=jobs or min(8, cores()),
        report=out.progress,
    )
    _show(out, report)
    errors, warnings = report.count("error"), report.count("warning")
    has_failed = errors > 0 or (strict and warnings > 0)
    return {
        "dataset": {
            "name": report.dataset,
            "cases": report.cases,
            "channels": list(report.channels),
            "labels": dict(report.labels),
        },
        "findings": [finding.as_dict() for finding in report.findings],
        "accepted": [finding.as_dict() for finding in report.accepted],
        "summary": {"error": errors, "warning": warnings},
        "exit_code": DataError.exit_code if has_failed else 0,
    }


def _show(out: Output, report: "Report") -> None:
    from rich.table import Table

    channels = ", ".join(report.channels) or "no channel"
    spacing = " × ".join(f"{low:.3g}–{high:.3g}" for low, high in report.facts.get("spacing", []))
    classes = sum(name not in ("background", "ignore") for name in report.labels)
    out.line(
        f"{report.dataset}   {report.cases} cases, {channels}, {classes} classes{f', {spacing} mm' if spacing else ''}"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in report.findings:
        cases = ", ".join(finding.cases[:MOST_CASES]) + (
            f" and {len(finding.cases) - MOST_CASES} more" if len(finding.cases) > MOST_CASES else ""
        )
        way = f"; mend: {finding.mend}" if finding.mend else ""
        table.add_row(finding.severity, cases or ", ".join(finding.files), finding.code, finding.message + way)
    if report.findings:
        out.show(table)
    aside = f", {len(report.accepted)} accepted" if report.accepted else ""
    out.line(f"{report.count('error')} errors, {report.count('warning')} warnings{aside} in {report.seconds:.1f} s")

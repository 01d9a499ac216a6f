"""`umamba fix`."""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umamba_seg.cli.check import find_raw, jobs_or_cores, show
from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DatasetArgument, DryRunOption, JobsOption, WorkspaceOption, introduce_workspace
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError
from umamba_seg.workspace import Workspace

if TYPE_CHECKING:
    from umamba_seg.datasets.fix.run import Fixed

NAME = re.compile(r"Dataset(\d{3})_.+")
DEFAULT_NAME = "Fixed"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = (
        "umamba fix 12 --out 112",
        "umamba fix 12 --out 112 --apply origin-mismatch:copy-geometry --apply label-undeclared:4=3",
    )
    command(app, "fix", examples=examples)(fix)


def fix(
    out: Output,
    dataset: DatasetArgument,
    target: Annotated[str, typer.Option("--out", help="Id or name of the copy, such as 112 or Dataset112_Liver.")],
    apply: Annotated[
        list[str] | None,
        typer.Option(help="CODE, CODE:ACTION or CODE:VALUE: a choice to make; may be repeated. See `umamba check`."),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files that do not change; else they are links.")] = False,
    dry_run: DryRunOption = False,
    jobs: JobsOption = None,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Write a corrected copy of a raw data set; the data set itself stays as it is.

    What loses nothing is done unasked, what is a choice only when it is named with --apply.
    """
    from umamba_seg.datasets.check.run import accepted_before, check
    from umamba_seg.datasets.fix.run import fix as mend

    place = introduce_workspace(out, workspace)
    raw, preprocessed = find_raw(dataset, place)
    folder = place.raw / _name(target, raw.name, place)
    look = partial(
        check, accept=accepted_before(preprocessed), processes=jobs_or_cores(jobs), report=out.progress
    )  # fmt: skip
    if not dry_run:
        place.make()
    done = mend(raw, folder, look, apply=apply or (), links=not copy, dry_run=dry_run, report=out.progress)
    _show(out, done, folder, raw)
    errors, warnings = done.report.count("error"), done.report.count("warning")
    return {
        "dataset": raw.name,
        "out": folder.name if done.is_made else None,
        "changes": [
            {"code": x.code, "action": x.action, "cases": list(x.cases), "files": list(x.files), "what": x.what}
            for x in done.changes
        ],
        "findings": [finding.as_dict() for finding in done.report.findings],
        "summary": {"error": errors, "warning": warnings},
        "dry_run": dry_run,
        "exit_code": DataError.exit_code if errors else 0,
    }


def _name(target: str, source: str, place: Workspace) -> str:
    """The name of the copy: an id takes the name of the source."""
    found = NAME.fullmatch(source)
    if target.isdecimal() and 1 <= int(target) <= 999:
        target = f"Dataset{int(target):03d}_{source[11:] if found else _plain(source)}"
    if not NAME.fullmatch(target) or Path(target).name != target:
        how = ["--out 112", "--out Dataset112_Liver"]
        raise UsageError(f"the copy needs an id or a name; got {target!r}", where="--out", how=how, code="bad-name")
    if taken := sorted(path.name for path in place.raw.glob(f"{target[:10]}_*")):
        raise UsageError(
            f"number {int(target[7:10])} is taken by {taken[0]}", where="--out", how=["choose another"], code="exists"
        )
    return target


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or DEFAULT_NAME


def _show(out: Output, done: "Fixed", folder: Path, raw: Path) -> None:
    for change in done.changes:
        out.line(f"{change.code}:{change.action}  {change.what}")
    left = done.report.findings
    if left:
        out.line("left:" if done.is_made else "found:")
    show(out, done.report, folder if done.is_made else raw)
    count = f"{len(done.changes)} change{'s' * (len(done.changes) != 1)}"
    if done.is_made:
        out.line(f"{count} in {folder}, each in fixes.json")
    elif done.changes:
        out.remark(f"dry run: {count} would be made, and nothing was written")
    else:
        out.remark("nothing of it can be mended without your word, so no copy was made" if left else "nothing to mend")

"""`umamba fix`: a copy of a data set in which is mended what can be. The source is read and never changed."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from umamba_seg import __version__
from umamba_seg.datasets.check.layout import look
from umamba_seg.datasets.check.paths import is_named
from umamba_seg.datasets.findings import Finding, Report
from umamba_seg.datasets.fix import remedies
from umamba_seg.datasets.fix.draft import DESCRIPTION, Draft, copy_tree
from umamba_seg.datasets.fix.names import FOLDERS
from umamba_seg.datasets.fix.remedy import Choice, Step
from umamba_seg.datasets.nifti import UnreadableError
from umamba_seg.errors import DataError, UsageError
from umamba_seg.files import write_text
from umamba_seg.progress import OnProgress, Progress, ignore

RECORD = "fixes.json"
MOST_ROUNDS = 8  # a fault may hide others: a file must have its right name before it is read

Look = Callable[[Path], Report]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was mended.

    Args:
        code: Of the fault.
        action: The remedy.
        cases: That had the fault.
        files: That are others now, relative to the data set's folder.
        what: In words, with the values.
    """

    code: str
    action: str
    cases: tuple[str, ...]
    files: tuple[str, ...]
    what: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was mended and what is left.

    Args:
        changes: In the order in which they were made.
        report: The check of the copy; of the source where none was made.
        is_made: Whether there is a copy.
    """

    changes: tuple[Change, ...]
    report: Report
    is_made: bool


def fix(
    source: Path,
    target: Path,
    look_at: Look,
    *,
    apply: Sequence[str] = (),
    links: bool = True,
    dry_run: bool = False,
    report: OnProgress = ignore,
) -> Fixed:
    """Write a corrected copy of a raw data set.

    Args:
        source: Folder of the data set; nothing in it is changed.
        target: Folder of the copy, which must not be there; it appears when it is complete.
        look_at: Checks a folder.
        apply: Remedies that are a choice: `CODE`, `CODE:ACTION` or `CODE:VALUE`.
        links: Files that do not change are links to those of the source; else copies.
        dry_run: Only find what would be done; what hides behind other faults is not seen.
        report: Told how far it is.

    Returns:
        What was mended and what is left. Without anything to mend there is no copy.
    """
    choices = [*remedies.safe_choices(), *remedies.choose(apply)]
    _check_places(source, target)
    first = look_at(source)
    planned = [change for change, _ in _steps(Draft(source), first.findings, choices)]
    if dry_run or not planned:
        return Fixed(tuple(planned), first, is_made=False)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        copy_tree(source, part / target.name, links=links)
        begun = replace(first, dataset=target.name)
        changes, last = _mend(part / target.name, begun, choices, look_at, _counted(report, len(planned)))
        record = {"umamba": __version__, "source": source.name, "changes": [asdict(change) for change in changes]}
        write_text(part / target.name / RECORD, json.dumps(record, indent=1))
        (part / target.name).rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Fixed(tuple(changes), last, is_made=True)


def _check_places(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise DataError("there is no such folder", where=str(source), how=["umamba check ID"], code="no-raw-data")
    if target.exists():
        raise UsageError("a data set of this name is there", where=str(target), how=["--out another"], code="exists")
    if is_named(look(source).description):
        how = ["put the files into imagesTr and labelsTr and take the block out"]
        what = "dataset.json names its files itself, in the block `dataset`, so a copy would use the same files"
        raise DataError(what, where=str(source / "dataset.json"), how=how, code="named-files")


def _counted(report: OnProgress, planned: int) -> Callable[[int], None]:
    """Tell how many changes are made, of those that are known by then."""
    return lambda done: report(Progress("fix", done, max(done, planned), "changes"))


def _mend(
    folder: Path, found: Report, choices: Sequence[Choice], look_at: Look, tell: Callable[[int], None]
) -> tuple[list[Change], Report]:
    """Round after round, until nothing is left that a choice fits; what was done once is not done again."""
    changes: list[Change] = []
    for _ in range(MOST_ROUNDS):
        done = 0
        for change, step in _steps(Draft(folder), found.findings, choices):
            if change in changes:
                continue
            try:
                step.act()
            except UnreadableError as fault:
                raise DataError(str(fault), where=", ".join(step.files), code="unreadable") from None
            changes.append(change)
            done += 1
            tell(len(changes))
        if not done:
            break
        found = look_at(folder)
    return changes, found


def _steps(draft: Draft, findings: Sequence[Finding], choices: Sequence[Choice]) -> Iterator[tuple[Change, Step]]:
    """What fits, found anew for each finding because an earlier step may have changed its files."""
    for finding in findings:
        for choice in choices:
            if choice.remedy.code != finding.code:
                continue
            step = _found(draft, finding, choice)
            if step is not None:
                yield Change(finding.code, choice.remedy.action, finding.cases, step.files, step.what), step
                if choice.remedy.parse is None:  # of values, several may be mapped in one file
                    break


def _found(draft: Draft, finding: Finding, choice: Choice) -> Step | None:
    try:
        return choice.remedy.find(draft, finding, choice.value)
    except UnreadableError:  # told as a finding of its own
        return None


@dataclass(frozen=True, slots=True)
class Offer:
    """How a finding may be mended.

    Args:
        is_safe: Whether `umamba fix` does it unasked.
        action: What to name after the code, or the form of the value.
    """

    is_safe: bool
    action: str


def offers(folder: Path, findings: Sequence[Finding]) -> list[Offer | None]:
    """For each finding what `umamba fix` can do, if anything: the safe remedy that fits, else the first choice."""
    draft = Draft(folder)
    return [_offer(draft, finding) for finding in findings]


def _offer(draft: Draft, finding: Finding) -> Offer | None:
    if any(name.partition("/")[0] not in (*FOLDERS, DESCRIPTION) for name in finding.files):
        return None  # test images are not copied
    known = remedies.of(finding.code)
    for remedy in known:
        if remedy.is_safe and _found(draft, finding, Choice(remedy)) is not None:
            return Offer(True, remedy.action)
    return next((Offer(False, remedy.action) for remedy in known if not remedy.is_safe), None)

"""`umamba import`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DryRunOption, WorkspaceOption, introduce_workspace
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError

app = typer.Typer(name="import", help="Make a raw data set from files that lie elsewhere.", no_args_is_help=True)


def folder(
    out: Output,
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: Annotated[Path, typer.Argument(help="Folder of label maps.")],
    number: Annotated[int, typer.Option("--id", help="Of the data set, 1 to 999.", min=1, max=999)],
    name: Annotated[str, typer.Option(help="Of the data set.")],
    label: Annotated[
        list[str],
        typer.Option(help="liver=1, or a region tumour=2,3, or ignore=4; may be repeated, larger regions first."),
    ],
    channel: Annotated[
        list[str] | None,
        typer.Option(help="0=CT, 1=PET …; may be repeated. CT gets CT's normalisation. Default: 0=MRI."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Expression on names without ending: first group the case, second the channel.")
    ] = None,
    link: Annotated[bool, typer.Option("--link/--copy", help="Link to the files instead of copying them.")] = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Pair images and labels by their names, copy them in, and check the result."""
    from umamba_seg.datasets import intake
    from umamba_seg.datasets.check.run import check

    place = introduce_workspace(out, workspace)
    target = place.raw / f"Dataset{number:03d}_{name}"
    if taken := sorted(path.name for path in place.raw.glob(f"Dataset{number:03d}_*")):
        raise UsageError(f"number {number} is taken by {taken[0]}", where="--id", how=["choose another"], code="exists")
    channels = _channels(channel or ["0=MRI"])
    declared, order = _labels(label)
    pairs = intake.pair(images, labels, channels=len(channels), pattern=pattern)
    description = intake.describe(pairs, channels, declared, order)
    if dry_run:
        out.line(f"would make {target} of {len(pairs.images)} cases")
        return {"dataset": target.name, "cases": list(pairs.images), "dry_run": True}
    place.make()
    intake.build(target, pairs, description, links=link, report=out.progress)
    report = check(target)
    for finding in report.findings:
        out.line(f"{finding.severity}  {', '.join(finding.cases)}  {finding.code}  {finding.message}")
    out.line(f"{target}: {len(pairs.images)} cases; {report.count('error')} errors, {report.count('warning')} warnings")
    out.remark(f"next:  umamba plan {number}" if report.ok else f"next:  umamba check {number}")
    return {
        "dataset": target.name,
        "cases": list(pairs.images),
        "findings": [finding.as_dict() for finding in report.findings],
        "exit_code": 0 if report.ok else DataError.exit_code,
    }


command(
    app,
    "folder",
    examples=(
        "umamba import folder scans masks --id 12 --name Liver --channel 0=CT --label liver=1 --label tumour=2",
        "umamba import folder scans masks --id 13 --name Brain --channel 0=T1 --channel 1=T2 --label lesion=1 --link",
    ),
)(folder)


def _channels(words: list[str]) -> list[str]:
    found = {}
    for word in words:
        number, equals, name = word.partition("=")
        if not (equals and number.isdecimal() and name):
            raise UsageError(
                f"a channel is NUMBER=NAME such as 0=CT; got {word!r}", where="--channel", code="bad-channel"
            )
        found[int(number)] = name
    if sorted(found) != list(range(len(found))):
        raise UsageError(
            f"channels count from 0 without gap; got {sorted(found)}", where="--channel", code="bad-channel"
        )
    return [found[i] for i in range(len(found))]


def _labels(words: list[str]) -> tuple[dict[str, int | list[int]], list[int] | None]:
    """The labels, and with regions the value that each is written with."""
    from umamba_seg.datasets import intake

    found: dict[str, int | list[int]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        values = text.split(",")
        if not (equals and name and all(value.isdecimal() for value in values)):
            what = f"a label is NAME=VALUE such as liver=1, or a region NAME=1,2; got {word!r}"
            raise UsageError(what, where="--label", code="bad-label")
        numbers = [int(value) for value in values]
        found[name] = numbers if len(numbers) > 1 else numbers[0]
    if not any(isinstance(value, list) for value in found.values()):
        return found, None
    return found, intake.class_order({name: value for name, value in found.items() if name != "ignore"})

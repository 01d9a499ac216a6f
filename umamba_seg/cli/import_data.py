"""`umamba import`."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import DryRunOption, WorkspaceOption, introduce_workspace
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError
from umamba_seg.workspace import Workspace, read_json

if TYPE_CHECKING:
    from umamba_seg.datasets.intake import Pairs

app = typer.Typer(name="import", help="Make a raw data set from files that lie elsewhere.", no_args_is_help=True)

LinkOption = Annotated[bool, typer.Option("--link/--copy", help="Link to the files instead of copying them.")]
NumberOption = Annotated[
    int | None, typer.Option("--id", help="Of the data set, 1 to 999; else that of the folder's name.", min=1, max=999)
]
NameOption = Annotated[str | None, typer.Option(help="Of the data set; else that of the folder.")]


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
    split_4d: Annotated[
        bool, typer.Option("--split-4d", help="Each image holds all channels along its fourth axis.")
    ] = False,
    link: LinkOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Pair images and labels by their names, copy them in, and check the result."""
    from umamba_seg.datasets import intake

    place = introduce_workspace(out, workspace)
    target = _target(place, number, name)
    channels = _channels(channel or ["0=MRI"])
    declared, order = _labels(label)
    pairs = intake.pair(images, labels, channels=1 if split_4d else len(channels), pattern=pattern)
    if split_4d:
        pairs = replace(pairs, split=len(channels))
    description = intake.describe(pairs, channels, declared, order)
    return _build(out, place, target, pairs, description, link=link, dry_run=dry_run)


def from_decathlon(
    out: Output,
    task: Annotated[Path, typer.Argument(help="Folder of the task, such as Task04_Hippocampus.", metavar="FOLDER")],
    number: NumberOption = None,
    name: NameOption = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="0=T1, 1=T2 …, instead of the names in dataset.json; may be repeated.")
    ] = None,
    link: LinkOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Take in a task of the Medical Segmentation Decathlon: channels become files, labels get their names."""
    place = introduce_workspace(out, workspace)
    if not (task / "dataset.json").is_file():
        how = ["name the unpacked folder that holds imagesTr and labelsTr"]
        raise DataError("there is no dataset.json in it", where=str(task), how=how, code="no-decathlon")
    target, pairs, description = _task(place, task, task, number, name)
    if channel:
        description["channel_names"] = {str(i): x for i, x in enumerate(_channels(channel))}
        pairs = replace(pairs, split=len(channel))
    return _build(out, place, target, pairs, description, link=link, dry_run=dry_run)


def from_zip(
    out: Output,
    file: Annotated[Path, typer.Argument(help="Zip of a raw data set, or of a decathlon task.", metavar="FILE")],
    number: NumberOption = None,
    name: NameOption = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Unpack a raw data set or a task of the decathlon, and check the result. Names that lead elsewhere are refused."""
    from umamba_seg.datasets import archive, decathlon

    place = introduce_workspace(out, workspace)
    named = _named_in(file)
    if dry_run:
        target = _raw_target(place, named, number, name)
        out.line(f"would make {target} of {file.name}")
        return {"dataset": target.name, "dry_run": True}
    target = _raw_target(place, named, number, name)  # before gigabytes are unpacked for nothing
    place.make()
    with archive.unpacked(file, place.raw / f".{target.name}.zip", out.progress) as inside:
        description = read_json(inside / "dataset.json")
        if decathlon.is_task(inside, description):
            target, pairs, made = _task(place, inside, Path(named), number, name)
            return _build(out, place, target, pairs, made)
        if not (inside / "imagesTr").is_dir():
            what = "it has a dataset.json, but no folder imagesTr beside it"
            raise DataError(what, where=str(file), how=["umamba import folder IMAGES LABELS"], code="no-data-set")
        inside.rename(target)
    return _finish(out, target)


def _named_in(file: Path) -> str:
    """The name of the data set's folder in a zip, or of the zip."""
    from umamba_seg.datasets import archive

    with archive.opened(file) as content:
        inside = Path(archive.folder_of(content, file)).name
    return inside or file.name.removesuffix(".zip")


def _raw_target(place: Workspace, named: str, number: int | None, name: str | None) -> Path:
    from umamba_seg.datasets import decathlon

    found = re.fullmatch(r"Dataset0*(\d{1,3})_(.+)", named)
    own = (int(found[1]), found[2]) if found else decathlon.number_and_name(Path(named))
    return _target(place, number or own[0], name or own[1])


def _task(
    place: Workspace, task: Path, named: Path, number: int | None, name: str | None
) -> "tuple[Path, Pairs, dict[str, Any]]":
    from umamba_seg.datasets import decathlon

    own = decathlon.number_and_name(named)
    target = _target(place, number or own[0], name or own[1])
    return target, *decathlon.read(task, read_json(task / "dataset.json"))


def _target(place: Workspace, number: int | None, name: str) -> Path:
    if number is None:
        how = ["--id 12"]
        raise UsageError(
            "the folder's name has no number, so the data set needs one", where="--id", how=how, code="no-id"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        what = f"a name is made of letters, digits, dot, _ and -; got {name!r}"
        raise UsageError(what, where="--name", how=["--name Liver"], code="bad-name")
    if taken := sorted(path.name for path in place.raw.glob(f"Dataset{number:03d}_*")):
        raise UsageError(f"number {number} is taken by {taken[0]}", where="--id", how=["choose another"], code="exists")
    return place.raw / f"Dataset{number:03d}_{name}"


def _build(
    out: Output,
    place: Workspace,
    target: Path,
    pairs: "Pairs",
    description: Mapping[str, Any],
    *,
    link: bool = False,
    dry_run: bool = False,
) -> Payload:
    from umamba_seg.datasets import intake

    if dry_run:
        out.line(f"would make {target} of {len(pairs.images)} cases")
        return {"dataset": target.name, "cases": list(pairs.images), "dry_run": True}
    place.make()
    intake.build(target, pairs, description, links=link, report=out.progress)
    return _finish(out, target)


def _finish(out: Output, target: Path) -> Payload:
    """Check what was made and say how to go on."""
    from umamba_seg.datasets.check.layout import look
    from umamba_seg.datasets.check.run import check

    number, cases = int(target.name[7:10]), sorted(look(target).images)
    report = check(target, report=out.progress)
    for finding in report.findings:
        out.line(f"{finding.severity}  {', '.join(finding.cases)}  {finding.code}  {finding.message}")
    out.line(f"{target}: {len(cases)} cases; {report.count('error')} errors, {report.count('warning')} warnings")
    out.remark(f"next:  umamba plan {number}" if report.ok else f"next:  umamba check {number}")
    return {
        "dataset": target.name,
        "cases": cases,
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
command(
    app,
    "decathlon",
    examples=("umamba import decathlon Task04_Hippocampus", "umamba import decathlon Task05_Prostate --id 205 --link"),
)(from_decathlon)
command(
    app,
    "zip",
    examples=("umamba import zip Dataset012_Liver.zip", "umamba import zip scans.zip --id 12 --name Liver"),
)(from_zip)


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

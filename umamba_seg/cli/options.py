"""Options and values that several commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from umamba_seg.cli.output import Output
from umamba_seg.errors import UsageError
from umamba_seg.workspace import Workspace, export_lines, locate

Number = TypeVar("Number", int, float)

DatasetArgument = Annotated[str, typer.Argument(help="Id, name or folder of the data set.", metavar="DATASET")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        help="Where data and results are when nnU-Net's three variables are not set.", rich_help_panel="Machine"
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or mps; by default the best there is.", rich_help_panel="Machine")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.", rich_help_panel="Output")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "-j", help="Cases worked on at once. Default: as many as cores and memory allow.", rich_help_panel="Machine"
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel="Output")]


def numbers(text: str | None, option: str) -> list[int] | None:
    """`96,160,160` as numbers."""
    return _listed(text, option, int, "whole numbers with commas between, such as 96,160,160")


def lengths(text: str | None, option: str) -> list[float] | None:
    """`2.5,0.8,0.8` as numbers."""
    return _listed(text, option, float, "numbers with commas between, such as 2.5,0.8,0.8")


def _listed(text: str | None, option: str, number: Callable[[str], Number], expected: str) -> list[Number] | None:
    if text is None:
        return None
    try:
        return [number(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        raise UsageError(f"expected {expected}; got {text!r}", where=option, code="bad-number") from None


def introduce_workspace(out: Output, option: Path | None) -> Workspace:
    """Say where the folders are: in full, with the lines stock commands need, as long as they are not made yet."""
    place = locate(option)
    if place.is_set_by_variables():
        if option is not None:
            out.warn("--workspace is not used: nnUNet_raw, nnUNet_preprocessed and nnUNet_results are set")
        return place
    if all(folder.is_dir() for folder in place.folders().values()):
        return place
    out.remark(f"data and results go to {place.results.parent}; so that stock nnU-Net commands see them too:")
    for line in export_lines(place, "bash"):
        out.remark(f"  {line}")
    return place


@contextmanager
def nnunet_at_work(out: Output) -> Iterator[None]:
    """Run nnU-Net's code without its chatter and in memory that stays, after a word on a version nobody has tried."""
    from umamba_seg.doctor import untried_host
    from umamba_seg.process import keep_freed_memory

    if remark := untried_host():
        out.warn(remark)
    keep_freed_memory()
    with out.chatter():
        yield

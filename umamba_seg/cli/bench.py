"""`umamba bench`."""

from pathlib import Path
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import numbers
from umamba_seg.cli.output import Output
from umamba_seg.errors import MachineError, UsageError

app = typer.Typer(name="bench", help="Measure how fast this machine is.", no_args_is_help=True)


def kernels(
    out: Output,
    backend: Annotated[str, typer.Option(help="auto, or the name of one.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    turns: Annotated[int, typer.Option(help="How often each is run; the best counts.", min=1)] = 5,
) -> Payload:
    """Time the selective scans, as ratios in one run."""
    from rich.table import Table

    from umamba_seg.bench.kernels import as_dicts, measure
    from umamba_seg.kernels import info

    _check_device(device)
    if info()[device].backend is None:
        raise MachineError(
            f"no scan can be timed on {device}: {next(iter(info()[device].why_not.values()))}", code="no-device"
        )
    rows = []
    table = Table("what", "ms", "compared", "ratio", "should be", box=None, pad_edge=False)
    for row in measure(backend, device, turns):
        rows.append(row)
        table.add_row(row.what, f"{row.milliseconds:.2f}", row.against, f"{row.ratio:.2f}", row.bound)
        out.remark(f"{row.what}: {row.against} {row.ratio:.2f}")
    out.show(table)
    return {"rows": as_dicts(rows)}


command(app, "kernels", examples=("umamba bench kernels", "umamba bench kernels --json > kernels.json"))(kernels)


def networks(
    out: Output,
    network: Annotated[
        list[str] | None, typer.Argument(help="Networks; all unless given.", metavar="[NETWORK]")
    ] = None,
    mixer: Annotated[
        list[str] | None, typer.Option("--mixer", help="A further mixer for their slots; may be repeated.")
    ] = None,
    dims: Annotated[int, typer.Option(help="Spatial axes, 2 or 3.", min=2, max=3)] = 3,
    patch: Annotated[str | None, typer.Option(help="Size of the image Z,Y,X; 64,64,64 or 256,256.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    turns: Annotated[int, typer.Option(help="How often each is run; the best counts.", min=1)] = 3,
) -> Payload:
    """Time and memory of a training step of each network, beside its twins without Mamba."""
    import torch
    from rich.table import Table

    from umamba_seg.bench.networks import as_dicts, measure
    from umamba_seg.process import keep_freed_memory

    keep_freed_memory()  # as training does
    _check_device(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise MachineError("torch sees no cuda device", code="no-device")
    if threads is not None:
        torch.set_num_threads(threads)
    size = numbers(patch, "--patch")
    if size is not None and len(size) != dims:
        raise UsageError(f"--patch needs {dims} numbers, got {len(size)}", code="bad-number")
    rows = []
    headings = ("network", "mixer", "parameters", "forward ms", "× none", "step ms", "× none", "memory MB", "× none")
    table = Table(*headings, box=None, pad_edge=False)
    for row in measure(network or (), mixers=mixer or (), dims=dims, patch_size=size, device=device, turns=turns):
        rows.append(row)
        table.add_row(
            row.network, row.mixer, f"{row.parameters / 1e6:.2f} M",
            f"{row.forward_ms:.0f}", f"{row.forward_to_twin:.2f}", f"{row.step_ms:.0f}", f"{row.step_to_twin:.2f}",
            f"{row.memory_mb:.0f}", f"{row.memory_to_twin:.2f}",
        )  # fmt: skip
        out.remark(f"{row.network} with {row.mixer}: {row.step_ms:.0f} ms, {row.memory_mb:.0f} MB")
    out.show(table)
    return {"rows": as_dicts(rows)}


command(app, "networks", examples=("umamba bench networks umamba_enc", "umamba bench networks --mixer axes"))(networks)


def predict(
    out: Output,
    case: Annotated[
        list[str] | None,
        typer.Argument(
            help="small, thirty, medium; large and classes60 take many minutes. Default: the first three.",
            metavar="[CASE]",
        ),
    ] = None,
    turns: Annotated[int, typer.Option(help="How often each program runs; the best counts.", min=1)] = 3,
    only_ours: Annotated[
        bool, typer.Option("--only-ours", help="Leave nnU-Net's command out, which takes 6 GB for the large cases.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Keep images, models and label maps there, and use those that are there.")
    ] = None,
) -> Payload:
    """CPU seconds and memory of `umamba predict` beside nnU-Net's own command, without mirroring, on the CPU."""
    from rich.table import Table

    from umamba_seg.bench.predict import DICE, SHARE, as_dicts, measure

    rows = []
    table = Table("case", "what", "nnU-Net", "ours", "ratio", "should be", box=None, pad_edge=False)
    for row in measure(case or (), turns=turns, only_ours=only_ours, folder=folder, tell=out.remark):
        rows.append(row)
        theirs = "" if row.theirs is None else f"{row.theirs:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        ours = f"{row.ours:.6f}" if row.what in (SHARE, DICE) else f"{row.ours:.2f}"
        table.add_row(row.case, row.what, theirs, ours, ratio, row.bound)
    out.show(table)
    return {"rows": as_dicts(rows)}


command(app, "predict", examples=("umamba bench predict small", "umamba bench predict large --only-ours --turns 1"))(
    predict
)


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device must be cpu or cuda; got {device!r}", code="unknown-device")

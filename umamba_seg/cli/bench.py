"""`umamba bench`."""

from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.output import Output

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
    from umamba_seg.errors import MachineError, UsageError
    from umamba_seg.kernels import info

    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device must be cpu or cuda; got {device!r}", code="unknown-device")
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

"""Print how fast the selective scans are here, as `umamba bench kernels` does, and append the rows to a CSV file.

python benchmarks/kernels.py [--device cuda] [--backend NAME] [--turns 5] [--csv FILE]
"""

import argparse
import csv
import platform
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from umamba_seg.bench.kernels import Row, measure


def append(file: Path, row: Row, device: str) -> None:
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    told = {"date": datetime.now(UTC).date().isoformat(), "machine": machine, "torch": torch.__version__, **asdict(row)}
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, told)
        if is_new:
            writer.writeheader()
        writer.writerow(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    print(*(field.name for field in fields(Row)), sep="  ")
    for row in measure(arguments.backend, arguments.device, arguments.turns):
        print(f"{row.what:40} {row.milliseconds:10.2f}  {row.against:36} {row.ratio:8.2f}  {row.bound}", flush=True)
        if arguments.csv:
            append(arguments.csv, row, arguments.device)


if __name__ == "__main__":
    main()

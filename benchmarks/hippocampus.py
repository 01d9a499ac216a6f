"""U-Mamba, its twins and others on hippocampi of real people: trained, judged, compared. Takes hours on a CPU.

    python benchmarks/hippocampus.py DATASET_FOLDER WORKSPACE                     # everything that is missing
    python benchmarks/hippocampus.py DATASET_FOLDER WORKSPACE --only umamba_bot   # one row

DATASET_FOLDER is `Dataset004_Hippocampus` in nnU-Net's format, with `imagesTs` and `labelsTs` for the test. Every step
is a command that a user could type; what is there is not made again, so a run that was stopped goes on. Rows go to
`results/hippocampus.json` beside this file, from which the table in docs/results.md is made, and the Dice of each case
to the folder `results/hippocampus`, so that rows made on different machines can be compared.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umamba_seg.evaluation.evaluate import OURS

HERE = Path(__file__).parent
ROWS_FILE, PAGE = HERE / "results" / "hippocampus.json", HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- hippocampus: made by benchmarks/hippocampus.py -->", "<!-- end -->"
NUMBER, CONFIGURATION = 4, "3d_fullres"


@dataclass(frozen=True)
class Row:
    """One network, and how it is planned and trained."""

    network: str
    mixer: str = ""
    patch: str = "40,56,40"
    epochs: int = 12
    trainer: str = ""

    @property
    def plans(self) -> str:
        words = [*self.network.split("_"), *self.mixer.split("_"), "hippocampus"]
        return "".join(word.capitalize() for word in words) + "Plans"

    @property
    def file(self) -> str:
        """What its results are called."""
        return self.plans + self.trainer


ROWS = {
    "umamba_bot": Row("umamba_bot"),
    "umamba_bot without Mamba": Row("umamba_bot", "none"),
    "umamba_enc": Row("umamba_enc"),
    "segmamba": Row("segmamba", patch="48,64,48", epochs=4),
    "lightm_unet": Row("lightm_unet", patch="48,64,48", epochs=4),
    "lightm_unet with Adam": Row("lightm_unet", patch="48,64,48", epochs=4, trainer="nnUNetTrainerLightMUNet"),
}
PAIRS = (("umamba_bot without Mamba", "umamba_bot"), ("umamba_bot without Mamba", "umamba_enc"))


def umamba(*words: object, workspace: Path) -> dict[str, Any]:
    """Run a command as a user would, and take its JSON."""
    command = [sys.executable, "-m", "umamba_seg.cli.main", *map(str, words), "--json"]
    if words[0] not in ("predict", "evaluate", "compare"):
        command += ["--workspace", str(workspace)]
    print("umamba", *words, file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise SystemExit(f"umamba {words[0]}: {answer.get('error', answer)}")
    return answer


def prepare(source: Path, workspace: Path) -> Path:
    """Copy the data, and keep both sides of a head in one fold: cases 2k-1 and 2k are one person's."""
    raw = workspace / "nnUNet_raw" / source.name
    if not raw.is_dir():
        shutil.copytree(source, raw)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").glob("*.nii.gz"))
    people = workspace / "people.csv"
    people.write_text("".join(f"{case},{(int(re.sub(r'[^0-9]', '', case)) + 1) // 2}\n" for case in cases))
    return raw


def run(name: str, row: Row, raw: Path, workspace: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Plan, train, segment the test cases, judge."""
    mixer = ("--mixer", row.mixer) if row.mixer else ()
    sizes = ("--patch", row.patch, "--batch", 4, "--plans-name", row.plans)
    umamba("plan", NUMBER, "--network", row.network, *mixer, "-c", CONFIGURATION, *sizes, workspace=workspace)
    umamba("splits", NUMBER, "--group", workspace / "people.csv", workspace=workspace)
    length = ("--epochs", options.epochs or row.epochs, "--iterations", options.iterations, "--checkpoint-every", 1)
    precision = ("--precision", options.precision) if options.precision else ()
    trainer = ("-tr", row.trainer) if row.trainer else ()
    trained = umamba(
        "train", NUMBER, CONFIGURATION, 0, "-p", row.plans, *trainer, *length, *precision, "--seed", 1,
        "--no-validation", workspace=workspace,
    )["runs"][0]  # fmt: skip
    out = workspace / "predictions" / row.file
    umamba("predict", Path(trained["folder"]).parent, "-i", raw / "imagesTs", "-o", out, workspace=workspace)
    people = workspace / "test_people.csv"
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").glob("*.nii.gz"))
    people.write_text("".join(f"{case},{(int(re.sub(r'[^0-9]', '', case)) + 1) // 2}\n" for case in cases))
    judged = umamba("evaluate", raw / "labelsTs", out, "--group", people, workspace=workspace)
    cases_file(options.rows_file, row).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / OURS, cases_file(options.rows_file, row))
    lines = (Path(trained["folder"]) / "progress.jsonl").read_text().splitlines()
    return {
        "name": name,
        "epochs": options.epochs or row.epochs,
        "iterations": options.iterations,
        "patch": row.patch,
        "precision": trained["precision"] or "fp32",
        "seconds_per_epoch": sorted(json.loads(line)["seconds"] for line in lines)[len(lines) // 2],
        "dice": judged["overall"]["dice"],
        "classes": {c: means["dice"] for c, means in judged["means"].items()},
    }


def cases_file(rows_file: Path, row: Row) -> Path:
    """Where the Dice of each case is kept."""
    return rows_file.with_suffix("") / f"{row.file}.json"


def compared(workspace: Path, rows_file: Path) -> list[dict[str, Any]]:
    """The differences of pairs whose cases are there."""
    found = []
    for first, second in PAIRS:
        files = [cases_file(rows_file, ROWS[name]) for name in (first, second)]
        if all(file.is_file() for file in files):
            (one,) = umamba("compare", *files, workspace=workspace)["comparisons"]
            found.append({**one, "first": first, "second": second})
    return found


def shown(number: float | None) -> str:
    """Three digits; a dash where there were too few cases for a number."""
    return "–" if number is None else f"{number:.3f}"


def table(content: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| network | epochs × iterations | arithmetic | mean Dice (95 %) | anterior | posterior | s per epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"].values():
        classes = " | ".join(shown(dice["mean"]) for dice in row["classes"].values())
        dice = f"{shown(row['dice']['mean'])} ({shown(row['dice']['low'])}–{shown(row['dice']['high'])})"
        how = f"{row['epochs']} × {row['iterations']} | {row['precision']}"
        lines.append(f"| {row['name']} | {how} | {dice} | {classes} | {row['seconds_per_epoch']:.0f} |")
    for one in content["differences"]:
        i = one["difference"]
        interval = f"{shown(i['mean'])} ({shown(i['low'])} to {shown(i['high'])})"
        lines += ["", f"{one['second']} − {one['first']}: {interval}: {one['verdict']}."]
    return "\n".join(lines)


def write_page(content: dict[str, Any]) -> None:
    """Put the table into the page."""
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[-1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(content)}\n\n{END}{after}")


def keep(content: dict[str, Any], options: argparse.Namespace) -> None:
    """Compare anew, and write what there is."""
    content["differences"] = compared(options.workspace, options.rows_file)
    options.rows_file.parent.mkdir(parents=True, exist_ok=True)
    options.rows_file.write_text(json.dumps(content, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--only", choices=list(ROWS), action="append", help="rows to make; all unless given")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16", "auto"))
    parser.add_argument("--epochs", type=int, help="instead of each row's own")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--rows-file", type=Path, default=ROWS_FILE)
    parser.add_argument("--page-only", action="store_true", help="train nothing; compare and show the rows there are")
    options = parser.parse_args()
    content = (
        json.loads(options.rows_file.read_text()) if options.rows_file.is_file() else {"rows": {}, "differences": []}
    )
    if options.page_only:
        keep(content, options)
    else:
        raw = prepare(options.dataset, options.workspace)
        for name in options.only or ROWS:
            content["rows"][name] = run(name, ROWS[name], raw, options.workspace, options)
            keep(content, options)
    print(table(content))
    if PAGE.is_file() and options.rows_file == ROWS_FILE:
        write_page(content)


if __name__ == "__main__":
    main()

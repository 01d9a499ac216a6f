"""nnU-Net's prediction beside ours on hippocampi of real people: are label maps equal, and what does each cost?

    python benchmarks/hippocampus_prediction.py DATASET_FOLDER WORKSPACE   # a stock U-Net, trained briefly
    python benchmarks/hippocampus_prediction.py DATASET_FOLDER WORKSPACE --model FOLDER

DATASET_FOLDER is `Dataset004_Hippocampus` in nnU-Net's format; its 30 test images are segmented, in turns and without
mirroring. CPU seconds are those of a command with all processes that it starts. What is there is not made again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from umamba_seg.bench.predict import Cost, agreement, run

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "inference.md"
BEGIN, END = "<!-- hippocampus: made by benchmarks/hippocampus_prediction.py -->", "<!-- end of hippocampus -->"
SCRIPTS = Path(sysconfig.get_path("scripts"))
CLASSES = 3


def stock_model(source: Path, workspace: Path, epochs: int, iterations: int) -> Path:
    """nnU-Net's default plans and network, trained for a few epochs: long enough to find hippocampi."""
    variables = {name: str(workspace / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    raw = workspace / "nnUNet_raw" / source.name
    if not raw.is_dir():
        shutil.copytree(source, raw)
    os.environ.update(variables)
    if not (workspace / "nnUNet_preprocessed" / source.name / "nnUNetPlans_3d_fullres").is_dir():
        plan = [SCRIPTS / "nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres", "-np", "2"]
        subprocess.run(plan, check=True, stdout=subprocess.DEVNULL)
    length = ["--epochs", str(epochs), "--iterations", str(iterations), "--checkpoint-every", "1"]
    train = [sys.executable, "-m", "umamba_seg.cli.main", "train", "4", "3d_fullres", "0", "-p", "nnUNetPlans"]
    quick = ["--precision", "bf16", "--no-validation", "--json"]
    done = subprocess.run([*train, *length, *quick], stdout=subprocess.PIPE, check=True)
    return Path(json.loads(done.stdout)["runs"][0]["folder"]).parent


def compare(model: Path, images: Path, workspace: Path, turns: int) -> dict[str, object]:
    """Both programs in turns on the test images."""
    theirs, ours = workspace / "theirs", workspace / "ours"
    costs: dict[str, list[Cost]] = {"nnU-Net": [], "ours": []}
    for _ in range(turns):
        shutil.rmtree(ours, ignore_errors=True)
        stock = ["-i", images, "-o", theirs, "-m", model, "-f", "0", "--disable_tta", "-device", "cpu"]
        costs["nnU-Net"].append(run([SCRIPTS / "nnUNetv2_predict_from_modelfolder", *stock]))
        mine = ["predict", model, "-i", images, "-o", ours, "-f", "0", "--no-tta", "--device", "cpu"]
        costs["ours"].append(run([sys.executable, "-m", "umamba_seg.cli.main", *mine]))
    share, dice = agreement(theirs, ours, CLASSES)
    best = {name: Cost.best(made) for name, made in costs.items()}
    return {
        "model": model.name,
        "equal": share,
        "worst_dice": dice,
        "cpu_ratio": best["nnU-Net"].cpu / best["ours"].cpu,
        "memory_ratio": best["nnU-Net"].memory / best["ours"].memory,
        "cpu_seconds": {name: round(cost.cpu, 1) for name, cost in best.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--model", type=Path, help="results folder to use instead of a stock U-Net")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    workspace = options.workspace.resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    model = options.model or stock_model(options.dataset.resolve(), workspace, options.epochs, options.iterations)
    row = compare(model.resolve(), options.dataset.resolve() / "imagesTs", workspace, options.turns)
    print(json.dumps(row, indent=1))
    file = HERE / "results" / "hippocampus_prediction.json"
    rows = json.loads(file.read_text()) if file.is_file() else {}
    rows[model.name] = row
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(rows, indent=1))
    if BEGIN in PAGE.read_text():
        before, after = PAGE.read_text().split(BEGIN)[0], PAGE.read_text().split(END)[-1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = [
        "| model | equal voxels | worst class Dice | CPU seconds, nnU-Net / ours | memory |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name.replace('__', ' ')} | {row['equal']:.7f} | {row['worst_dice']:.5f} | {row['cpu_ratio']:.1f} | "
        f"{row['memory_ratio']:.1f} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Workers that begin as new processes, as on Windows and macOS, and on Linux from Python 3.14, get all they need."""

import sys

import pytest

from tests.helpers import ROOT, Umamba
from tests.nnunet import stock_commands

SPAWNED = """
import multiprocessing, runpy, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
WHAT = (900, "3d_fullres", "all", "-p", "our3DPlans")
STOCK = (ROOT / "tests/short_nnunet_training.py", *WHAT, "-device", "cpu")
OURS = (ROOT / "umamba_seg/cli/main.py", "train", *WHAT, "--epochs", 1, "--iterations", 2, "--device", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [STOCK, (*STOCK, "-tr", "nnUNetTrainerUMambaEnc"), OURS, (*OURS, "-tr", "nnUNetTrainerUUMamba")],
    ids=["stock", "stock with our trainer", "ours", "ours with our trainer"],
)
def test_a_training_with_spawned_workers_ends_well(phantoms: Umamba, command):
    script = phantoms.folder / "spawned.py"
    script.write_text(SPAWNED)

    answer = phantoms.run(sys.executable, script, *command, nnUNet_n_proc_DA="2")

    stock_commands.done(answer)
    (checkpoint,) = stock_commands.folder(phantoms, "results").glob("*/fold_all/checkpoint_final.pth")
    assert (checkpoint.parent / "validation/summary.json").is_file()

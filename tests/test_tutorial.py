"""Every command of the tutorial, as it stands there but for its length, on phantoms."""

import re
import shlex
import shutil
import sys

import pytest

from tests.helpers import ROOT
from umamba_seg.datasets.phantoms import write_dataset

COMMANDS = re.findall(r"^    umamba (.+)$", (ROOT / "docs/tutorial.md").read_text(), re.M)
SHORTER = {
    "--epochs 100 --iterations 50": "--epochs 1 --iterations 2 --device cpu",
    "e100i50": "e1i2",
    "-c 3d_fullres --twin": "-c 3d_fullres --twin --patch 16,24,24 --batch 2 -j 1",
    "-o with": "--device cpu -o with",
}


@pytest.mark.slow
def test_the_tutorial_runs(umamba):
    made = write_dataset(umamba.folder / "made", cases=5, test_cases=4, shape=(16, 24, 24))
    for source, target in (("imagesTr", "scans"), ("labelsTr", "masks"), ("labelsTs", "new_masks")):
        shutil.copytree(made / source, umamba.folder / target)
    shutil.copytree(made / "imagesTs", umamba.folder / "new_scans")
    umamba.variables |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0"}

    assert len(COMMANDS) > 10
    for command in COMMANDS:
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        answer = umamba.run(sys.executable, "-m", "umamba_seg.cli.main", *shlex.split(command))
        assert answer.code == 0, f"umamba {command}\n{answer.out}\n{answer.err[-3000:]}"

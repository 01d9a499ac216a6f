"""What stock nnU-Net does with trained models works on ours: choose, ensemble, evaluate, pack."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import DATASET

TRAINER = "nnUNetTrainer_e1i1"


@pytest.mark.slow
def test_stock_tools_take_our_models(phantoms):
    def tool(name: str, *arguments: object) -> None:
        answer = phantoms.run(Path(sys.executable).with_name(name), *arguments)
        assert answer.code == 0, f"{name}: {answer.out[-1000:]}{answer.err[-3000:]}"

    assert phantoms("splits", 900, "--folds", 2).code == 0
    for plans in ("our3DPlans", "our3DNoMambaPlans"):
        command = ("train", 900, "3d_fullres", "0", "1", "-p", plans, "--epochs", 1, "--iterations", 1, "--npz")
        answer = phantoms(*command, "--device", "cpu")
        assert answer.code == 0, answer.err[-3000:]
    results = Path(phantoms.variables["nnUNet_results"]) / DATASET
    named = ("-tr", TRAINER, "-c", "3d_fullres", "-f", 0, 1)

    tool("nnUNetv2_find_best_configuration", 900, "-p", "our3DPlans", "our3DNoMambaPlans", *named, "-np", 1)
    assert (results / "inference_instructions.txt").is_file()

    assert list((results / "ensembles").glob("*/*.nii.gz"))  # of both, which it tries by itself

    models = [results / f"{TRAINER}__{plans}__3d_fullres" for plans in ("our3DPlans", "our3DNoMambaPlans")]
    validations = [model / "fold_0/validation" for model in models]
    labels = Path(phantoms.variables["nnUNet_raw"]) / DATASET / "labelsTr"
    files = ("-djfile", models[0] / "dataset.json", "-pfile", models[0] / "plans.json")
    tool("nnUNetv2_evaluate_folder", labels, validations[0], *files, "-o", phantoms.folder / "s.json", "--chill")
    assert (phantoms.folder / "s.json").is_file()

    packed = phantoms.folder / "model.zip"
    tool("nnUNetv2_export_model_to_zip", "-d", 900, "-o", packed, "-p", "our3DPlans", *named)
    assert any(name.endswith("fold_1/checkpoint_final.pth") for name in zipfile.ZipFile(packed).namelist())

import json
from pathlib import Path

from tests.helpers import DATASET, mends
from umamba_seg.datasets.phantoms import write_dataset


def test_folds_are_written_once_and_others_need_a_word(umamba):
    write_dataset(umamba.folder / "umamba_workspace/nnUNet_raw", cases=5, shape=(16, 24, 24))
    cases = sorted(
        x.name.split(".")[0] for x in (umamba.folder / f"umamba_workspace/nnUNet_raw/{DATASET}/labelsTr").iterdir()
    )
    pairs = umamba.folder / "patients.csv"
    pairs.write_text("".join(f"{case},{'a' if i < 2 else i}\n" for i, case in enumerate(cases)))

    answer = umamba("splits", 900, "--group", pairs, "--folds", 2, "--json")

    assert answer.code == 0, answer.err
    document = answer.document()
    written = json.loads(Path(document["file"]).read_text())
    assert written == document["folds"]
    assert all(len({cases[0], cases[1]} & set(fold["val"])) in (0, 2) for fold in written)
    assert umamba("splits", 900, "--group", pairs, "--folds", 2).code == 0
    assert "--overwrite" in mends(umamba("splits", 900, "--folds", 3), code=2)
    assert umamba("splits", 900, "--folds", 3, "--dry-run").code == 0
    assert umamba("splits", 900, "--folds", 3, "--overwrite").code == 0
    assert "2 to 5 folds" in mends(umamba("splits", 900, "--folds", 9), code=2)

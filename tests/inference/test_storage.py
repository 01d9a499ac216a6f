"""What gives way when memory is short, and that results do not change with it."""

import subprocess
import sys

import numpy as np
import pytest

from tests.inference.stock import write_image
from umamba_seg.bench.made_up_model import MadeUp
from umamba_seg.inference.model import load_model
from umamba_seg.inference.storage import Need, Storage

NEED = Need(sums=100, row=1, image=60, labels=40)


@pytest.mark.parametrize(
    ("budget", "waiting", "rows", "on_disk"),
    [
        (227, 2, 8, ()),
        (226, 1, 8, ()),
        (218, 1, 8, ()),
        (217, 1, 4, ()),
        (206, 1, 2, ()),
        (205, 1, 2, ("image",)),
        (146, 1, 2, ("image",)),
        (145, 1, 2, ("image", "labels")),
        (105, 1, 2, ("image", "labels", "sums")),
    ],
)
def test_what_gives_way_and_in_which_order(tmp_path, budget, waiting, rows, on_disk):
    storage = Storage.within(budget, NEED, tmp_path)

    assert (storage.waiting, storage.rows, storage.on_disk) == (waiting, rows, on_disk)


def test_files_have_no_name_and_hold_what_was_written(tmp_path):
    storage = Storage(tmp_path, ("image",))
    array = storage.zeros("image", (3, 4), np.float32)
    assert not array.any()
    array[1] = 7
    storage.give_way()

    assert array[1].tolist() == [7, 7, 7, 7]
    assert not list(tmp_path.iterdir())
    assert not isinstance(storage.zeros("labels", (3,), np.uint8), np.memmap)


@pytest.mark.parametrize("folds", [(0,), (0, 1)])
def test_a_small_budget_changes_no_label(tmp_path, folds):
    model = MadeUp(spacing=(1.2, 0.9, 1.0), folds=folds).write(tmp_path)
    image = write_image(tmp_path / "a_0000.nii.gz", (24, 28, 26), (1.0, 1.0, 1.0))
    told: list[str] = []

    rich = load_model(model, mirror=False, device="cpu").predict(image)
    poor = load_model(model, mirror=False, device="cpu", memory=1, scratch=tmp_path, tell=told.append).predict(image)

    assert np.array_equal(rich.array, poor.array)
    assert any("image, labels, sums" in sentence for sentence in told)


PEAK = """
import sys
from pathlib import Path
from umamba_seg.bench.memory import peak_growth
from umamba_seg.inference.model import load_model
model = load_model(sys.argv[1], mirror=False, device="cpu", memory=int(sys.argv[3]), scratch=Path(sys.argv[2]).parent)
model.predict(sys.argv[4])  # loads kernels
print(peak_growth(lambda: model.predict(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("classes", [4, 40])
def test_the_peak_is_within_the_budget_whatever_the_classes(tmp_path, classes):
    """Beside what reading takes: the image as stored and as float32, and once more while it is normalised."""
    budget, shape = 48 * 2**20, (160, 160, 160)
    model = MadeUp(spacing=(1.5, 1.5, 1.5), tile=(16, 16, 16), classes=classes).write(tmp_path)
    large = write_image(tmp_path / "large_0000.nii.gz", shape, (1.0, 1.0, 1.0))
    small = write_image(tmp_path / "small_0000.nii.gz", (20, 20, 20), (1.0, 1.0, 1.0))

    command = [sys.executable, "-c", PEAK, str(model), str(large), str(budget), str(small)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    reading = 3.25 * np.prod(shape) * 4
    assert int(done.stdout.split()[-1]) < budget + reading

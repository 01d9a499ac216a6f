import pytest

from umamba_seg.planning import estimate as module
from umamba_seg.planning.estimate import GB, estimate, free_memory

FINGERPRINT = {"shapes_after_crop": [[100, 200, 300]] * 4, "spacings": [[2.0, 1.0, 1.0]] * 4}
ENTRY = {"spacing": [1.0, 1.0, 1.0], "normalization_schemes": ["CTNormalization", "ZScoreNormalization"]}


def of(tmp_path, entry=ENTRY, transpose=(0, 1, 2), cases=4, processes=None):
    return estimate(
        "3d_fullres", entry, list(transpose), FINGERPRINT, tmp_path / "new", cases=cases, processes=processes
    )


def test_disk_is_that_of_the_resampled_images_and_labels(tmp_path):
    voxels = 200 * 200 * 300
    assert of(tmp_path).disk_gb == pytest.approx(4 * voxels * (2 * 4 + 2) / GB)


def test_spacing_is_in_the_order_of_the_plans(tmp_path):
    turned = of(tmp_path, {**ENTRY, "spacing": [1.0, 2.0, 1.0]}, transpose=(2, 0, 1))
    assert turned.disk_gb == pytest.approx(of(tmp_path).disk_gb / 2)


def test_2d_keeps_the_spacing_between_slices(tmp_path):
    assert of(tmp_path, {**ENTRY, "spacing": [1.0, 1.0]}).disk_gb == pytest.approx(of(tmp_path).disk_gb / 2)


def test_as_many_processes_as_memory_allows_and_never_none(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 64)
    for free, processes in ((1000 * GB, 4), (5 * GB, 3), (0.1 * GB, 1)):
        monkeypatch.setattr(module, "free_memory", lambda free=free: free)
        assert of(tmp_path).processes == processes
    assert any("memory" in warning for warning in of(tmp_path).warnings())
    assert "-j" in of(tmp_path, processes=3).warnings()[-1]


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    whole = free_memory()
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == pytest.approx(whole, rel=0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_memory_is_about_what_resampling_takes(tmp_path):
    """The peak of one case, against tracemalloc, which sees what numpy allocates."""
    import tracemalloc

    import numpy as np
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    before, after, channels = (40, 60, 60), (60, 60, 60), 2
    image, label = np.random.default_rng(0).random((channels, *before), np.float32), np.zeros((1, *before), np.int8)
    spacings = [1.5, 1.0, 1.0], [1.0, 1.0, 1.0]
    tracemalloc.start()
    kept = [image.copy(), image.copy(), label.copy()]
    kept.append(resample_data_or_seg_to_shape(image, after, *spacings, is_seg=False, order=3, order_z=0))
    kept.append(resample_data_or_seg_to_shape(label, after, *spacings, is_seg=True, order=1, order_z=0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    told = module._peak_bytes(float(np.prod(before)), float(np.prod(after)), channels)

    assert 0.5 < told / peak < 2

"""OpenVINO beside torch, and that nothing it was not asked for happens."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from umamba_seg.bench.made_up_model import MadeUp, blobs
from umamba_seg.errors import BackendUnavailableError, UsageError
from umamba_seg.inference import openvino
from umamba_seg.inference.backends import TorchBackend
from umamba_seg.inference.engine import Engine, Options
from umamba_seg.inference.model_folder import ModelFolder, Weights
from umamba_seg.mixers.registry import create

if find_spec("openvino") is None:  # importing it here would tell Google
    pytest.skip("openvino is not installed (pip install umamba-seg[openvino])", allow_module_level=True)

MODELS = {
    "plain": MadeUp(tile=(24, 24, 24), features=(8, 16)),
    "flat": MadeUp(tile=(32, 24), spacing=(1.0, 1.0), features=(8, 16), configuration="2d"),
    "regions": MadeUp(tile=(16, 24, 24), regions={"whole": (1, 2), "core": (2,)}),
    "channels": MadeUp(
        tile=(16, 16, 16), channels=(("T1", "ZScoreNormalization", False), ("T2", "ZScoreNormalization", False))
    ),
    "folds": MadeUp(tile=(16, 16, 16), folds=(0, 1)),
}
BUDGET = 1e-3  # of logits between -8 and 8; 5e-4 was the largest difference at 64³ voxels


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return load(MODELS["plain"], tmp_path)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with each network that is converted."""
    made, convert = [], openvino._convert

    def counted(network: Any, example: Tensor) -> Any:
        made.append(network)
        return convert(network, example)

    monkeypatch.setattr(openvino, "_convert", counted)
    return made


def load(made_up: MadeUp, folder: Path) -> Weights:
    return ModelFolder.open(made_up.write(folder, fit=True)).load()


def load_umamba(folder: Path, mixer: str) -> Weights:
    """A U-Mamba Bot of random weights, with its own or another mixer."""
    from umamba_seg.networks.umamba import UMambaBot

    model = MODELS["plain"].write(folder)
    plans = json.loads((model / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "umamba_seg.networks.umamba.UMambaBot"
    architecture["arch_kwargs"]["mixer"] = mixer
    (model / "plans.json").write_text(json.dumps(plans))
    file = model / "fold_0/checkpoint_final.pth"
    network = UMambaBot(1, 3, **architecture["arch_kwargs"])
    torch.save(torch.load(file) | {"network_weights": network.state_dict()}, file)
    return ModelFolder.open(model).load()


def tiles(weights: Weights, count: int = 1) -> Tensor:
    channels = len(weights.model.channels)
    images = [blobs(weights.configuration.patch_size, 3, seed)[1] for seed in range(count * channels)]
    return torch.from_numpy(np.stack(images)).unflatten(0, (count, channels))


def files_of(kept: Path) -> dict[str, Path]:
    return {path.suffix: path for path in kept.iterdir()}


def only_kept() -> Path:
    (folder,) = openvino.cache_folder().iterdir()
    return folder


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_their_labels_are_torchs(tmp_path, name, mirror):
    weights = load(MODELS[name], tmp_path)
    seen = tiles(weights, 2)
    ours, theirs = openvino.make(weights, mirror=mirror), TorchBackend(weights, "cpu", mirror=mirror)
    assert ours.folds == theirs.folds == len(weights.folds)

    for fold in range(ours.folds):
        actual, expected = ours(fold, seen), theirs(fold, seen)
        assert actual.shape == expected.shape
        assert expected.abs().max() > 2  # decided, so that the budget says something
        assert (actual - expected).abs().max() < BUDGET
        assert (actual.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


def test_tiles_of_a_batch_come_out_as_they_do_alone(weights):
    backend, seen = openvino.make(weights, mirror=False), tiles(weights, 3)
    alone = torch.cat([backend(0, seen[i : i + 1]) for i in range(3)])
    assert torch.equal(backend(0, seen), alone)


@pytest.mark.parametrize("name", ["plain", "flat"])
def test_an_engine_asked_for_it_uses_it_and_makes_the_label_map_of_torch(tmp_path, name):
    weights = load(MODELS[name], tmp_path)
    image = blobs((40, 33, 37), 3, seed=5)[1][None]
    maps = {}
    for backend in ("torch", "openvino"):
        engine = Engine(weights, "cpu", Options(backend=backend, mirror=False), scratch=tmp_path)
        assert engine.backend.name == backend
        maps[backend] = engine.labels(engine.prepare(image, {"spacing": [1.0, 1.0, 1.0]}))
    assert len(np.unique(maps["torch"])) == 3
    assert (maps["torch"] == maps["openvino"]).mean() >= 0.9999


def test_it_computes_in_float32(weights):
    """By itself it takes bf16 on processors that have it."""
    assert openvino.make(weights, mirror=False).networks[0].precision == "f32"


def test_a_network_is_converted_once(weights, conversions):
    first = openvino.make(weights, mirror=False)
    second = openvino.make(weights, mirror=False)
    assert len(conversions) == 1
    assert torch.equal(first(0, tiles(weights)), second(0, tiles(weights)))


def test_each_fold_is_kept_by_itself(tmp_path, conversions):
    weights = load(MODELS["folds"], tmp_path)
    openvino.make(weights, mirror=False)
    openvino.make(weights, mirror=False)
    assert len(conversions) == len(list(openvino.cache_folder().iterdir())) == 2


def test_other_weights_are_converted_anew(weights, conversions):
    openvino.make(weights, mirror=False)
    changed = {name: value.clone() for name, value in weights.folds[0].items()}
    changed["decoder.seg_layers.0.bias"][0] += 1e-3
    openvino.make(replace(weights, folds=(changed,)), mirror=False)
    assert len(conversions) == 2


@pytest.mark.parametrize("fault", ["cut", "zeroed", "no weights", "no xml", "empty", "other network"])
def test_a_damaged_entry_is_made_anew(weights, conversions, fault):
    expected = openvino.make(weights, mirror=False)(0, tiles(weights))
    files = files_of(only_kept())
    xml, numbers = files[".xml"], files[".bin"]
    if fault == "cut":
        numbers.write_bytes(numbers.read_bytes()[: numbers.stat().st_size // 2])
    elif fault == "zeroed":
        numbers.write_bytes(bytes(numbers.stat().st_size))
    elif fault == "no weights":
        numbers.unlink()
    elif fault == "no xml":
        xml.unlink()
    elif fault == "empty":
        xml.write_text("")
    else:
        openvino._openvino().save_model(other_network(), xml, compress_to_fp16=False)

    conversions.clear()
    again = openvino.make(weights, mirror=False)(0, tiles(weights))
    assert torch.equal(again, expected)
    openvino.make(weights, mirror=False)
    assert len(conversions) == 1  # what was made anew was kept
    assert [path.name for path in openvino.cache_folder().iterdir()] == [xml.parent.name]


def other_network() -> Any:
    return openvino._convert(torch.nn.Conv3d(1, 2, 3).eval(), torch.zeros(1, 1, 8, 8, 8))


def test_a_cache_that_cannot_be_written_is_no_obstacle(weights, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(openvino, "cache_folder", lambda: tmp_path / "file/umamba/openvino")
    assert openvino.make(weights, mirror=False)(0, tiles(weights)).isfinite().all()


def test_a_network_that_does_not_agree_with_torch_is_refused_and_not_kept(weights, monkeypatch):
    run = openvino._Network.__call__
    monkeypatch.setattr(openvino._Network, "__call__", lambda self, tiles: run(self, tiles) + 0.02)
    with pytest.raises(BackendUnavailableError, match=r"logits differ from torch's by 0\.02") as fault:
        openvino.make(weights, mirror=False)
    assert fault.value.where == "--backend"
    assert "--backend torch" in fault.value.how[0]
    assert not openvino.cache_folder().exists()


def test_what_counts_as_agreement():
    torch.manual_seed(0)
    expected = torch.randn(1, 3, 20, 20, 30)  # 12000 voxels: two may differ
    assert openvino._disagreement(expected + 9e-3, expected, has_regions=False) is None
    assert "0.011" in str(openvino._disagreement(expected + 1.1e-2, expected, has_regions=False))
    assert "nan" in str(openvino._disagreement(expected * torch.nan, expected, has_regions=False))
    for has_regions in (False, True):
        expected.view(3, -1)[:, :3] = torch.tensor([[1e-3], [0.0], [-1.0]])
        close = expected.clone()
        close.view(3, -1)[0, :2] -= 2e-3
        assert openvino._disagreement(close, expected, has_regions=has_regions) is None
        close.view(3, -1)[0, 2] -= 2e-3
        assert has_regions or "3 of 12000" in str(openvino._disagreement(close, expected, has_regions=has_regions))


def test_regions_are_told_by_their_sign():
    expected = torch.full((1, 2, 10, 10, 10), 1e-3)  # 2000 values, of which one may differ
    other = expected.clone()
    other[0, 0, 0, 0, :2] = -1e-3
    assert "2 of 2000" in str(openvino._disagreement(other, expected, has_regions=True))
    other[0, 0, 0, 0, 0] = 1e-3
    assert openvino._disagreement(other, expected, has_regions=True) is None


@pytest.mark.parametrize("mixer", ["mamba", "none"])
def test_logits_of_umamba_and_its_twin_are_torchs(tmp_path, mixer):
    weights = load_umamba(tmp_path, mixer)
    assert openvino.why_not(weights, "cpu") is None
    made, expected = openvino.make(weights, mirror=False), TorchBackend(weights, "cpu", mirror=False)
    assert (made(0, tiles(weights)) - expected(0, tiles(weights))).abs().max() < BUDGET


@pytest.mark.parametrize("length", [1, 2, 37])
def test_a_scan_of_torchs_operators_is_ours(length):
    torch.manual_seed(0)
    mixer, x = create("mamba", 8, spatial_dims=3), torch.randn(2, length, 1, 1, 8)
    with torch.inference_mode():
        expected = mixer(x)
        with openvino._PlainScans() as plain:
            actual = mixer(x)
    assert plain.reason is None
    assert not torch.equal(actual, expected) or length == 1  # else nothing was replaced
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_network_with_another_scan_is_refused(tmp_path):
    weights = load_umamba(tmp_path, "axes")
    reason = "it scans in a way that openvino has no operators for"
    assert openvino.why_not(weights, "cpu") == reason
    with pytest.raises(BackendUnavailableError, match=reason):
        Engine(weights, "cpu", Options(backend="openvino"))


def test_a_network_with_a_long_scan_is_refused(tmp_path, monkeypatch):
    weights = load_umamba(tmp_path, "mamba")
    monkeypatch.setattr(openvino, "LARGEST_SCAN", 1727 * 32 * 16)
    with pytest.raises(BackendUnavailableError, match="it scans 1728 voxels, for which openvino takes longer"):
        openvino.make(weights, mirror=False)


def test_a_network_that_openvino_cannot_express_is_refused_with_the_operator(weights, monkeypatch):
    class Bessel(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    monkeypatch.setattr(Weights, "networks", lambda self: [Bessel()])
    with pytest.raises(BackendUnavailableError, match="bessel_j0"):
        openvino.make(weights, mirror=False)


def test_it_runs_on_the_cpu_only(weights):
    assert openvino.why_not(weights, "cuda") == "it runs on the cpu, and the device is cuda"
    with pytest.raises(BackendUnavailableError, match="the device is mps"):
        openvino.make(weights, "mps", mirror=False)


def test_another_precision_is_refused(weights):
    with pytest.raises(UsageError, match="fp32 only, not in bf16"):
        openvino.make(weights, mirror=False, precision="bf16")


def test_where_it_is_not_installed_the_extra_is_named(weights, monkeypatch):
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    assert "umamba-seg[openvino]" in str(openvino.why_not(weights, "cpu"))
    with pytest.raises(BackendUnavailableError, match=r"umamba-seg\[openvino\]"):
        openvino.make(weights, mirror=False)


def test_importing_it_sends_no_message(tmp_path):
    """By itself, openvino tells Google of its import and leaves a number for the user in the home folder."""
    code = """
import sys
from umamba_seg.inference import openvino
openvino._core()
assert not any(name.startswith("openvino_telemetry") for name in sys.modules)
import openvino_telemetry  # still there for those who want it
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert not (tmp_path / "intel").exists()

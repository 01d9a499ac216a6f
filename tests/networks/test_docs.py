"""The pages about networks and mixers: their examples run, and what they add does what every network does."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from tests.networks.plans import TINY_PATCH, tiny
from umamba_seg.mixers import MIXERS
from umamba_seg.networks import NETWORKS, create
from umamba_seg.networks.architecture import architecture

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def run(code: str, module: ModuleType) -> ModuleType:
    exec(compile(code, module.__name__, "exec"), module.__dict__)
    return module


@pytest.fixture
def skip_unet(monkeypatch: pytest.MonkeyPatch) -> str:
    """The network of the page, in a module and in the registry."""
    network, record = blocks("networks.md")
    monkeypatch.setitem(sys.modules, "skip_unet", run(network, ModuleType("skip_unet")))
    entry = run(record, ModuleType("registered")).record
    monkeypatch.setitem(NETWORKS, entry.name, entry)
    return entry.name


@pytest.fixture
def mean_mixer(monkeypatch: pytest.MonkeyPatch) -> str:
    """The mixer of the page, in a module and in the registry."""
    _, mixer, line = blocks("mixers.md")
    monkeypatch.setitem(sys.modules, "mean_mixer", run(mixer, ModuleType("mean_mixer")))
    ((name, path),) = run(line, ModuleType("line")).MIXERS.items()
    monkeypatch.setitem(MIXERS, name, path)
    return name


def test_the_first_example_of_a_mixer_runs():
    run(blocks("mixers.md")[0], ModuleType("example"))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mixer", [None, "none", "mamba"])
def test_the_network_of_the_page_is_built_from_plans(skip_unet: str, dims: int, mixer: str | None):
    record = NETWORKS[skip_unet]
    like = {"arch_kwargs": tiny(dims), "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}
    block = architecture(record, like, TINY_PATCH[dims], mixer=mixer, spacing=[1.0] * dims)

    network = get_network_from_plans(
        block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"], 2, 3, deep_supervision=True
    )

    outputs = network(torch.randn(1, 2, *TINY_PATCH[dims]))
    sum(y.square().mean() for y in outputs).backward()
    assert len(network.skip_layers) == (0 if mixer == "none" else 3)
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["umamba_bot", "umamba_enc", "segmamba", "lightm_unet"])
def test_the_mixer_of_the_page_fills_slots(mean_mixer: str, name: str):
    record = NETWORKS[name]
    like = {"arch_kwargs": tiny(3), "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}
    block = architecture(record, like, TINY_PATCH[3], mixer=mean_mixer)

    network = create(name, 2, 3, deep_supervision=False, **block["arch_kwargs"])

    assert any("MeanMixer" in type(module).__name__ for module in network.modules())

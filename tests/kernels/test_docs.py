"""The page about the kernels says what is so: its code runs, and its backend passes the tests of ours."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.kernels.closeness import assert_within
from tests.kernels.scan_cases import Case, outcome
from tests.oracles.scan import selective_scan as oracle
from umamba_seg.kernels import dispatch, selective_scan

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_example_of_a_volume_runs():
    exec(compile(BLOCKS[0], str(PAGE), "exec"), {})


def test_the_example_of_a_backend_computes_the_scan(monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("umamba_seg.kernels.doubled.scan")
    exec(compile(BLOCKS[1], str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    told: dict[str, object] = {"Backend": dispatch.Backend}
    exec(compile(BLOCKS[2], str(PAGE), "exec"), told)
    monkeypatch.setattr(dispatch, "BACKENDS", (told["doubled"], *dispatch.BACKENDS))
    case = Case(batch=2, length=70, channels=6, states=5)
    expected = outcome(oracle, case.tensors(), **case.options())

    actual = outcome(
        lambda **given: selective_scan(**given, return_last_state=True, backend="doubled"),
        {name: x.float() for name, x in case.tensors().items()},
        **case.options(),
    )

    assert_within(actual, expected)
    assert torch.equal(
        selective_scan(**{name: x.float() for name, x in case.tensors().items()}, **case.options()), actual["y"]
    )

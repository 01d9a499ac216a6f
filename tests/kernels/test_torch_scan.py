"""What only the torch backend promises: work and memory that grow as the tokens do, and a slow version to read."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.closeness import assert_within
from tests.kernels.scan_cases import Case, outcome
from tests.kernels.test_scan_values import OPTIONS
from tests.oracles.scan import selective_scan as oracle
from umamba_seg.kernels import selective_scan
from umamba_seg.kernels.problem import Scan
from umamba_seg.kernels.torch import blocks, plain
from umamba_seg.kernels.torch import scan as torch_scan


class Ledger(TorchDispatchMode):
    """Counts calls, the elements they write, and those of the largest array among these; views write nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.elements = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        self.calls += 1
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        if isinstance(made, Tensor) and (alias is None or alias.is_write):
            self.elements += made.numel()
            self.largest = max(self.largest, made.numel())
        return made


def described(case: Case, tensors: dict[str, Tensor]) -> Scan:
    fields = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    given = {name: tensors.get(name) for name in fields} | {"cu_seqlens": None, "out_dtype": None} | case.options()
    return Scan(**given, deterministic=None)


def ledgers(length: int) -> tuple[Ledger, Ledger]:
    """Of a forward and a backward pass."""
    case = Case(batch=2, length=length, channels=32, states=16)
    scan = described(case, {name: x.float() for name, x in case.tensors().items()})
    with Ledger() as forward:
        y, last, checkpoints = torch_scan.forward(scan)
    with Ledger() as backward:
        torch_scan.backward(scan, checkpoints, y, last)
    return forward, backward


def test_work_grows_with_the_tokens_and_no_faster():
    for once, twice in zip(ledgers(4096), ledgers(8192), strict=True):
        assert twice.calls < 2.05 * once.calls
        assert twice.elements < 2.05 * once.elements


def test_no_array_holds_the_states_of_all_tokens():
    for ledger in ledgers(16384):
        assert ledger.largest < max(2 * blocks.CPU_BLOCK, 1.01 * 2 * 16384 * 32)
        assert ledger.largest < 2 * 16384 * 32 * 16 / 8


def test_the_backward_pass_keeps_the_inputs_and_few_states():
    case = Case(batch=2, length=8192, channels=32, states=16)
    tensors = {name: x.float().requires_grad_() for name, x in case.tensors().items()}
    saved: Counter[int] = Counter()

    def pack(x: Tensor) -> Tensor:
        saved[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        selective_scan(**tensors, **case.options())

    given = sum(x.numel() for x in tensors.values())
    assert given < sum(saved.values()) < 1.05 * given


@pytest.mark.parametrize("size", [2**12, 2**15, 2**30])
@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_and_chunks_change_no_more_than_rounding(monkeypatch, size, reverse):
    case = Case(batch=3, length=700, channels=3, states=4, reverse=reverse)
    expected = outcome(oracle, case.tensors(), **case.options())
    monkeypatch.setattr(blocks, "CPU_BLOCK", size)

    actual = outcome(
        lambda **given: selective_scan(**given, return_last_state=True, backend="torch"),
        {name: x.float() for name, x in case.tensors().items()},
        **case.options(),
    )

    assert_within(actual, expected)


@pytest.mark.parametrize("ends", [(), (0, 0, 5, 600, 1700, 1700)])
@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_hold_every_token_once_and_have_a_slot_each(ends, reverse):
    case = Case(batch=1 if ends else 200, length=1700, channels=32, states=16, ends=ends, reverse=reverse)
    scan = described(
        case,
        {
            name: x.expand(case.batch, -1, -1) if x.dim() == 3 and name != "initial_state" else x
            for name, x in Case(1, 1700, 32, 16).tensors().items()
        },
    )
    seen = torch.zeros(case.batch, case.length)
    used = set()

    for block in blocks.blocks(scan):
        seen[block.rows, block.tokens] += 1
        used |= {(row, block.slot) for row in range(case.batch)[block.rows]}
        assert block.slot < blocks.slots(scan)
        assert block.steps * block.chunks >= block.length

    assert (seen == 1).all()
    assert len(used) == sum(len(range(case.batch)[block.rows]) for block in blocks.blocks(scan))


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_the_slow_version_is_the_oracle_too(case):
    def slow(**given: Any) -> tuple[Tensor, Tensor]:
        return plain.selective_scan(described(case, given))

    expected = outcome(oracle, case.tensors(), **case.options())

    assert_within(outcome(slow, case.tensors(), **case.options()), expected)

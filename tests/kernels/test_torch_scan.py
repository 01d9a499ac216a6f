"""What only the torch backend promises: work and memory that grow as the tokens do, and a slow version to read."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import operator_arguments
from tests.kernels.scan_cases import Case, outcome, single
from tests.kernels.test_scan_values import OPTIONS
from tests.kernels.test_volume_values import OPTIONS as VOLUME_OPTIONS
from tests.kernels.volume_cases import VolumeCase
from tests.oracles.scan import selective_scan as oracle
from tests.oracles.volume import scan_volume as volume_oracle
from umamba_seg.kernels import ops, scan_volume, selective_scan
from umamba_seg.kernels.problem import CHECKPOINT_STEP, Scan, slots
from umamba_seg.kernels.torch import blocks, plain
from umamba_seg.kernels.torch import scan as torch_scan
from umamba_seg.kernels.torch.parts import parts
from umamba_seg.kernels.torch.runs import runs


class Ledger(TorchDispatchMode):
    """Counts calls, the elements they write, and those of the largest array among these; views write nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.calls = self.elements = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        self.calls += 1
        self.names[func._overloadpacket.__name__] += 1
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        if isinstance(made, Tensor) and (alias is None or alias.is_write):
            self.elements += made.numel()
            self.largest = max(self.largest, made.numel())
        return made


def described(monkeypatch: pytest.MonkeyPatch, case: Case, tensors: dict[str, Tensor]) -> Scan:
    scan = partial(selective_scan, return_last_state=True, backend="torch")
    *fields, _ = operator_arguments(monkeypatch, scan, **tensors, **case.options())
    return Scan(*fields)


@pytest.fixture
def ledgers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Ledger, Ledger]]:
    """Of a forward and a backward pass over so many tokens."""

    def of(length: int) -> tuple[Ledger, Ledger]:
        case = Case(batch=2, length=length, channels=32, states=16)
        tensors = {name: x.float().requires_grad_() for name, x in case.tensors().items()}
        scan = described(monkeypatch, case, tensors)
        with torch.no_grad(), Ledger() as forward:
            y, last, checkpoints = torch_scan.forward(scan)
        with torch.no_grad(), Ledger() as backward:
            torch_scan.backward(scan, checkpoints, y, last)
        return forward, backward

    return of


def test_work_grows_with_the_tokens_and_no_faster(ledgers):
    for once, twice in zip(ledgers(4096), ledgers(8192), strict=True):
        assert twice.calls < 2.05 * once.calls
        assert twice.elements < 2.05 * once.elements


def test_no_array_holds_the_states_of_all_tokens(ledgers):
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
        selective_scan(**tensors, **case.options(), backend="torch")

    given = sum(x.numel() for x in tensors.values())
    kept = 2 * (8192 // CHECKPOINT_STEP + 1) * 32 * 16
    assert sum(saved.values()) < 1.01 * (given + kept)
    assert kept < 0.07 * given


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


def work_on_a_volume(monkeypatch: pytest.MonkeyPatch, case: VolumeCase) -> Ledger:
    """Of both passes."""
    tensors = {name: x.float().requires_grad_() for name, x in case.tensors().items()}
    *fields, _ = operator_arguments(monkeypatch, scan_volume, **tensors, **case.options(), spatial_dims=len(case.space))
    scan = Scan(*fields)
    with torch.no_grad(), Ledger() as ledger:
        y, _, checkpoints = torch_scan.forward(scan)
        torch_scan.backward(scan, checkpoints, y, None)
    return ledger


@pytest.mark.parametrize("route", ["yx", "-y-x", "+x", "shuffled"])
@pytest.mark.parametrize("window", [None, 20])
def test_only_what_lies_apart_in_memory_is_gathered(monkeypatch, route, window):
    case = VolumeCase((30, 40), (route,), channels=16, states=8, reset=window, left_out=("initial_state",))

    ledger = work_on_a_volume(monkeypatch, case)

    assert bool(ledger.names["index_select"] + ledger.names["index_add_"]) == (route == "shuffled")


@pytest.mark.parametrize("routes", [("+y", "-x"), ("xy", "padded"), ("samples",)], ids=str)
@pytest.mark.parametrize("window", [None, 7])
def test_work_on_any_route_grows_with_the_tokens_and_no_faster(monkeypatch, routes, window):
    once, twice = (VolumeCase((48 * n, 48), routes, channels=16, states=8, reset=window) for n in (1, 2))

    small, large = (work_on_a_volume(monkeypatch, case) for case in (once, twice))

    assert large.calls < 2.2 * small.calls
    assert large.elements < 2.2 * small.elements
    assert large.largest < max(2 * blocks.CPU_BLOCK, 1.1 * twice.batch * twice.length * twice.channels)


@pytest.mark.parametrize("ends", [(), (0, 0, 5, 600, 1700, 1700)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels", [32, 1500])
def test_runs_hold_every_token_once_and_keep_each_state_in_a_place_of_its_own(monkeypatch, ends, reverse, channels):
    case = Case(batch=1 if ends else 50, length=1700, channels=channels, states=16, ends=ends, reverse=reverse)
    one = Case(1, 1700, channels, 16).tensors()
    wide = {name: x.expand(case.batch, -1, -1) for name, x in one.items() if x.dim() == 3 and name != "initial_state"}
    scan = described(monkeypatch, case, {"A": one["A"]} | wide)
    seen = torch.zeros(case.batch, case.length, channels)
    used = set()

    for part in parts(scan):
        for run in runs(scan, part):
            items = range(case.batch)[run.rows.items]
            for block in run.blocks:
                ones = torch.ones(len(items) * len(run.pieces), block.length, part.width)
                run.strand.add(part.channels(seen), block, ones)
                assert block.steps * block.chunks >= block.length
                if block.tokens.start:
                    places = {(part.start, item, int(slot)) for item in items for slot in run.slots(block)}
                    assert not places & used
                    assert len(places) == len(items) * len(run.pieces)
                    used |= places

    assert (seen == 1).all()
    assert max(slot for _, _, slot in used) < slots(scan.orders()[0])


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_few_channels_at_a_time_change_no_more_than_rounding(monkeypatch, case):
    expected = outcome(oracle, case.tensors(), **case.options())
    monkeypatch.setattr(blocks, "CPU_BLOCK", 2**9)

    actual = outcome(partial(selective_scan, return_last_state=True, backend="torch"), single(case), **case.options())

    assert_within(actual, expected)


@pytest.mark.parametrize("case", VOLUME_OPTIONS, ids=str)
def test_few_channels_of_a_volume_at_a_time_change_no_more_than_rounding(monkeypatch, case):
    expected = outcome(partial(volume_oracle, space=case.space), case.tensors(), **case.options())
    monkeypatch.setattr(blocks, "CPU_BLOCK", 2**8)
    scan = partial(scan_volume, return_last_state=True, spatial_dims=len(case.space), backend="torch")

    assert_within(outcome(scan, single(case), **case.options()), expected)


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_the_slow_version_is_the_oracle_too(monkeypatch, case):
    expected = outcome(oracle, case.tensors(), **case.options())
    monkeypatch.setattr(ops, "scan_forward", lambda *fields: (*plain.scan_volume(Scan(*fields[:-1])), None))

    actual = outcome(partial(selective_scan, return_last_state=True), case.tensors(), **case.options())

    assert_within(actual, expected)

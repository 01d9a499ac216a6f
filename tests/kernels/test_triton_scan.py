"""The triton backend against a float64 loop over tokens: on a GPU, or in triton's interpreter if asked for."""

from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import is_interpreted
from tests.kernels.scan_cases import weights as weigh
from umamba_seg.errors import BackendUnavailableError
from umamba_seg.kernels.dispatch import choose
from umamba_seg.kernels.problem import Scan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(
        DEVICE == "cpu" and not is_interpreted("triton"),
        reason="there is no GPU; `make test-interpreted` runs it on the CPU",
    ),
]


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut what is longer than 64 tokens into chunks."""
    from umamba_seg.kernels.triton import parts

    monkeypatch.setattr(parts, "LONGEST_ALONE", 64)
    monkeypatch.setattr(parts, "CHUNKS", (64,))


@dataclass(frozen=True)
class Case:
    """A scan to test; what is not said is left out, or shared by all routes.

    Args:
        space: The volume.
        own: The tensors that each route has of its own.
        B: Groups of B, 0 for a number of channels that is constant over tokens. So is `C`.
    """

    space: tuple[int, ...] = (5,)
    routes: str = "+x"
    batch: int = 2
    channels: int = 3
    states: int = 2
    given: tuple[str, ...] = ("D", "z", "delta_bias")
    own: tuple[str, ...] = ()
    B: int = 1
    C: int = 1
    weights: tuple[int, int] = (1, 1)
    table: Any = None
    offsets: Any = None
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return " ".join(f"{name}={value}" for name, (value, default) in values.items() if value not in (default, {}))

    def scan(self) -> Scan:
        generator = torch.Generator().manual_seed(len(self.space) + self.states)
        k, b, d, n = self.routes.count(",") + 1, self.batch, self.channels, self.states

        def normal(name: str, *shape: int) -> Tensor:
            routes = k if name in self.own else 1
            x = torch.randn(routes, *shape, generator=generator)
            return x.to(self.dtypes.get(name, torch.float32))

        def coefficient(name: str, groups: int) -> Tensor:
            ones = (1,) * len(self.space)
            return normal(name, b, *self.space, groups, n) if groups else normal(name, 1, *ones, d, n)

        options = {
            "routes": self.routes, "decay_scale": [], "y_scale": 1.0, "delta_softplus": True, "exact_gain": False,
            "exclusive": "", "is_stacked": False, "keeps_last": True, "is_differentiated": True, "out_dtype": None,
            "deterministic": None,
        } | self.options  # fmt: skip
        delta = normal("delta", b, *self.space, d)
        optional = {
            "D": normal("D", d),
            "z": normal("z", b, *self.space, d),
            "delta_bias": normal("delta_bias", d),
            "weights": torch.randn(k, *self.weights, generator=generator),
        }
        scan = Scan(
            u=normal("u", b, *self.space, d), delta=delta - 2 if options["delta_softplus"] else delta.abs() / 8,
            A=-torch.arange(1, n + 1).float() - normal("A", d, n).abs(),
            B=coefficient("B", self.B), C=coefficient("C", self.C), initial_state=None,
            **{name: x if name in self.given else None for name, x in optional.items()},
            table=None if self.table is None else torch.tensor(self.table),
            offsets=None if self.offsets is None else torch.tensor(self.offsets), **options,
        )  # fmt: skip
        if not options["delta_softplus"] and scan.delta_bias is not None:
            scan = replace(scan, delta_bias=scan.delta_bias.abs() / 8)
        if "initial_state" in self.given:
            pieces = max(order.pieces for order in scan.orders())
            scan = replace(scan, initial_state=torch.randn(k, b, pieces, d, n, generator=generator))
        moved = {name: value.to(DEVICE) for name in FIELDS if (value := getattr(scan, name)) is not None}
        return replace(scan, **moved)


FIELDS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "weights", "initial_state", "table", "offsets")


def tokens_of(scan: Scan, route: int, item: int) -> list[list[int]]:
    """The voxels of each piece of a route, -1 for a token that is not there."""
    names = scan.routes.split(",")
    name, _, reset = names[route].partition("/")
    axes = "zyx"[-len(scan.space) :]
    voxels = torch.arange(scan.u.shape[2:-1].numel()).view(scan.space)
    if name == "table":
        table = scan.table[sum(x.startswith("table") for x in names[:route])]
        lines = table[item % len(table)][None]
    else:
        for axis in name[1::2]:
            if name[name.index(axis) - 1] == "-":
                voxels = voxels.flip(axes.index(axis))
        others = [axis for axis in axes if axis not in name]
        order = voxels.permute([axes.index(axis) for axis in (*others, *name[1::2])])
        lines = order.reshape(order.shape[:-1].numel() if len(name) == 2 else 1, -1 if order.numel() else 0)
    if reset == "@":
        ends = scan.offsets[sum(x.endswith("@") for x in names[:route])].tolist()
        return [lines[0, a:b].tolist() for a, b in pairwise(ends)]
    window = int(reset or lines.shape[1])
    return [part.tolist() for line in lines for part in line.split(window)]


def reference(scan: Scan) -> tuple[Tensor, Tensor]:
    """y and the last states, one token after the other."""
    rows = {x: getattr(scan, x) for x in ("u", "delta", "z", "B", "C") if getattr(scan, x) is not None}
    rows = {name: x.flatten(2, -3 if name in ("B", "C") else -2) for name, x in rows.items()}
    count, d, voxels = scan.number_of_routes, scan.channels, rows["u"].shape[2]

    def at(x: Tensor, *place: int) -> Tensor:
        for i in place:
            x = x[i % len(x)]
        return x

    y = []
    last = torch.zeros(scan.new_last_state().shape, dtype=torch.float64)
    for k in range(count):
        A = at(scan.A, k)
        for b in range(scan.batch):
            outs: list[list[Tensor]] = [[] for _ in range(voxels)]
            for s, piece in enumerate(tokens_of(scan, k, b)):
                h = torch.zeros_like(A) if scan.initial_state is None else scan.initial_state[k, b, s]
                before = torch.zeros(d, dtype=torch.float64)
                for voxel in piece:
                    if voxel < 0:
                        continue
                    x = at(rows["delta"], k, b, voxel)
                    if scan.delta_bias is not None:
                        x = x + at(scan.delta_bias, k)
                    if scan.delta_softplus:
                        x = torch.logaddexp(x, torch.zeros_like(x))
                    dt = (x * scan.scale(k))[:, None]
                    B, C = (
                        at(rows[name], k, b, voxel).repeat_interleave(d // rows[name].shape[-2], 0)
                        for name in ("B", "C")
                    )
                    u = at(rows["u"], k, b, voxel)
                    decay = (dt * A).exp()
                    gain = dt
                    if scan.exact_gain:
                        series = dt + dt * dt * A / 2  # with its slope at 0
                        gain = torch.where(A == 0, series, (dt * A).expm1() / torch.where(A == 0, 1, A))
                    own = (C * decay * h).sum(-1)
                    h = decay * h + gain * u[:, None] * B
                    inclusive = (C * h).sum(-1)
                    out = {"": inclusive, "own": own, "shift": before}[scan.exclusive]
                    before = inclusive
                    if scan.D is not None:
                        out = out + at(scan.D, k) * u
                    outs[voxel].append(out)
                last[k, b, s] = h
            y += [sum(found, torch.zeros(d, dtype=torch.float64)) for found in outs]
    shape = count, scan.batch, voxels, d
    stacked = torch.stack(y).view(shape) if y else torch.zeros(shape, dtype=torch.float64)
    if scan.weights is not None:
        stacked = stacked * scan.weights[:, :, None]
    stacked = stacked * scan.y_scale
    if scan.z is not None:
        stacked = stacked * torch.nn.functional.silu(rows["z"])
    total = stacked if scan.is_stacked else stacked.sum(0, keepdim=True)
    return total.view(*total.shape[:2], *scan.space, d), last


def expected(scan: Scan, with_y: bool = True, with_last: bool = True) -> dict[str, Tensor]:
    leaves = {name: x.detach().cpu().double().requires_grad_() for name, x in scan.differentiable().items()}
    others = {name: x.cpu() for name in ("table", "offsets") if (x := getattr(scan, name)) is not None}
    y, last = reference(replace(scan, **leaves, **others))
    seeds = [(x, weigh(x)) for x, is_wanted in ((y, with_y), (last, with_last)) if is_wanted and x.requires_grad]
    grads = torch.autograd.grad(
        [x for x, _ in seeds], list(leaves.values()), [g for _, g in seeds], materialize_grads=True
    )
    grads = {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {"y": y.detach(), "last_state": last.detach(), **grads}


def actual(scan: Scan, with_y: bool = True, with_last: bool = True) -> dict[str, Tensor]:
    run = choose("triton", scan.u.device, scan.state_dtype).load()
    y, last, checkpoints = run.forward(scan)
    grads = run.backward(
        scan, checkpoints, weigh(y).to(DEVICE) if with_y else None, weigh(last).to(DEVICE) if with_last else None
    )
    assert list(grads) == list(scan.differentiable())
    found = {"y": y, "last_state": last, **{f"d{name}": grad for name, grad in grads.items()}}
    return {name: x.cpu() for name, x in found.items()}


def check(case: Case) -> None:
    scan = case.scan()
    assert_within(actual(scan), expected(scan))


EVERY = ("D", "z", "delta_bias", "weights", "initial_state")
TABLE = [[0, 3, -1, 2, 5]]
TABLES = [[[0, -1, 2], [5, 4, 3]], [[1, -1, -1], [2, 0, 1]]]  # two routes, each with a table for each batch item
REPEATS = [[0, 3, -1, 3, 0], [1, 1, 2, 2, -1]]
CASES = [
    Case(),
    Case(space=(1,), batch=1, channels=1, states=1, given=()),
    Case(space=(2, 3), routes="+x,-x,+y,-y", batch=1, channels=17),
    Case(space=(2, 3, 2), routes="-z-y-x,+y-x+z", batch=1, states=5, given=("initial_state", "delta_bias")),
    Case((2, 4), "+x/3,-y+x/5", 1, own=("u", "delta", "A", "B", "C", "D", "delta_bias", "z"), given=EVERY),
    Case(space=(2, 3), routes="+x,-y", own=("delta", "B"), given=EVERY, weights=(2, 3), options={"is_stacked": True}),
    Case(space=(4,), routes="+x,-x", own=("u", "delta", "z"), given=EVERY, weights=(2, 1), options={"y_scale": 0.5}),
    Case(space=(2, 3), routes="+x,+y", options={"decay_scale": [0.5, 2.0], "exact_gain": True}),
    Case(space=(5,), options={"exact_gain": True, "exclusive": "own", "delta_softplus": False}),
    Case(space=(2, 4), routes="+x,-y-x/3", batch=1, given=EVERY, options={"exclusive": "own"}),
    Case(space=(2, 4), routes="+x,-y-x/3", batch=1, given=EVERY, options={"exclusive": "shift"}),
    Case(channels=6, B=2, C=3),
    Case(channels=6, B=0, C=2, given=EVERY),
    Case(channels=4, B=4, C=0, options={"exact_gain": True, "exclusive": "own"}),
    Case(batch=1, states=17),
    Case(space=(6,), routes="table,+x", table=[TABLE], given=EVERY),
    Case(space=(6,), routes="table/2,table", table=TABLES, options={"exclusive": "shift"}),
    Case(space=(6,), routes="table", table=TABLES[:1], options={"is_stacked": True}),
    Case(space=(4,), routes="table/2,-x", table=[REPEATS], given=EVERY),
    Case(space=(7,), routes="+x/@", batch=1, offsets=[[0, 2, 2, 7]], given=EVERY),
    Case(space=(6,), routes="table/@,-x/@", table=[TABLE], offsets=[[0, 1, 3, 3], [0, 0, 2, 6]], given=EVERY),
    Case(space=(0,), batch=2),
    Case(space=(3,), batch=0),
    Case(space=(3,), routes="table", table=[[[]]]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_match_the_float64_loop(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("exclusive", ["", "shift"])
def test_pieces_longer_than_a_checkpoint_match_the_float64_loop(exclusive: str) -> None:
    check(Case(space=(67,), batch=1, channels=2, given=("z", "initial_state"), options={"exclusive": exclusive}))


def test_shift_finds_the_token_before_a_checkpoint_behind_tokens_that_are_not_there() -> None:
    table = [*range(61), -1, -1, -1, -1, 61, 62]
    case = Case(space=(64,), routes="table", batch=1, channels=2, states=1, table=[[table]], given=("z",))
    check(replace(case, options={"exclusive": "shift"}))


@pytest.mark.parametrize("route", ["-x", "+x/@", "table"])
def test_chunks_match_the_float64_loop(chunked: None, route: str) -> None:
    table = [[[*range(30), -1, *range(30, 65)]]] if route == "table" else None
    offsets = [[0, 0, 65, 66]] if route == "+x/@" else None
    options = {"exclusive": "own"} if route == "-x" else {}
    given = ("D", "weights", "initial_state")
    check(Case((66,), route, 1, 2, 1, given=given, table=table, offsets=offsets, options=options))


def test_one_program_may_walk_many_pieces_and_chunks(monkeypatch: pytest.MonkeyPatch, chunked: None) -> None:
    from umamba_seg.kernels.triton import scan

    monkeypatch.setattr(scan, "BACKWARD_PROGRAMS", 1)
    check(Case((2, 3), "+x,-y", 1, given=EVERY))
    check(Case((66,), "+x", 1, 1, 1, given=("weights",)))


def test_chunks_are_taken_where_pieces_do_not_fill_the_machine() -> None:
    from umamba_seg.kernels.triton.parts import chunk_tokens

    assert [chunk_tokens(programs, 100_000) for programs in (1, 3, 6, 2047, 2048)] == [64, 128, 256, 256, 100_000]
    assert chunk_tokens(1, 256) == 256


@pytest.mark.parametrize("missing", ["y", "last_state"])
def test_a_gradient_that_is_not_asked_for_counts_as_zero(missing: str) -> None:
    scan = Case(given=("initial_state",)).scan()
    asked = {"with_y": missing != "y", "with_last": missing != "last_state"}
    assert_within(actual(scan, **asked), expected(scan, **asked))


@pytest.mark.parametrize("merge", ["sum", "stack"])
def test_16_bit_tensors_are_computed_with_in_float32(merge: str) -> None:
    halves = {"u": torch.bfloat16, "delta": torch.float16, "B": torch.bfloat16, "z": torch.float16, "A": torch.bfloat16}
    scan = Case((4,), "+x,-x", dtypes=halves, given=EVERY, options={"is_stacked": merge == "stack"}).scan()
    assert_within(actual(scan), expected(scan))


def test_out_dtype_keeps_what_16_bits_cannot_hold() -> None:
    scan = Case(dtypes={"u": torch.float16}, given=(), options={"out_dtype": torch.float32}).scan()
    scan = replace(scan, u=scan.u.abs() * 1000 + 1000, C=scan.B.abs() * 1e4, B=scan.B.abs())

    found = actual(scan)

    assert found["y"].abs().max() > torch.finfo(torch.float16).max
    assert_within({"y": found["y"]}, {"y": expected(scan)["y"]})


def test_rows_need_not_lie_close_nor_evenly() -> None:
    scan = Case((2, 3), "-x-y").scan()
    plain = actual(scan)
    wide = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    apart = {
        "u": scan.u.movedim(-1, 2).contiguous().movedim(2, -1),  # channels outside
        "delta": wide[None, :, ::2, 1:, :3].copy_(scan.delta),  # uneven rows
        "B": scan.B.transpose(2, 3).contiguous().transpose(2, 3),
        "C": torch.stack([scan.C, scan.C], -1)[..., 0],
        "A": scan.A.mT.contiguous().mT,
    }

    found = actual(replace(scan, **apart))

    assert_within(found, {name: x.double() for name, x in plain.items()})


def test_offsets_into_memory_may_pass_32_bits() -> None:
    scan = Case((2,), batch=2, given=()).scan()
    memory = torch.from_numpy(np.zeros(2**31 + 64, np.float16)).to(DEVICE)  # pages that nobody touches cost nothing
    far = memory.as_strided(scan.u.shape, (0, 2**31, 3, 1)).copy_(scan.u)

    found = actual(replace(scan, u=far))

    assert_within(found, expected(replace(scan, u=scan.u.half())))


def test_what_no_token_names_is_never_read() -> None:
    case = Case((4,), "table", table=[[[2, -1, 0]]], given=EVERY)
    scan = case.scan()
    spoilt = {name: getattr(scan, name).clone() for name in ("u", "delta", "z", "B", "C")}
    for x in spoilt.values():
        x[:, :, [1, 3]] = torch.nan

    found = actual(replace(scan, **spoilt))

    assert_within(found, expected(scan))


def test_a_nan_stays_in_its_batch_item_and_channel() -> None:
    scan = Case(channels=3, given=("D", "z")).scan()
    u = scan.u.clone()
    u[0, 1, 0, 2] = torch.nan

    found, plain = actual(replace(scan, u=u)), actual(scan)

    assert found["y"][0, 1, :, 2].isnan().all()
    assert torch.equal(found["y"][0, 0], plain["y"][0, 0])
    assert torch.equal(found["y"][..., :2], plain["y"][..., :2])
    assert torch.equal(found["dB"][0, 0], plain["dB"][0, 0])


@pytest.mark.parametrize("stress", ["fast", "slow", "large", "growing", "zero"])
def test_decays_may_be_extreme(stress: str) -> None:
    scan = Case((6,), batch=1, given=("z",), options={"exact_gain": stress in ("slow", "zero")}).scan()
    A = {"fast": -1e4, "slow": -1e-6, "large": -1.0, "growing": 0.5, "zero": 0.0}[stress]
    delta = scan.delta.clone()
    delta[..., 0], delta[..., 1], delta[..., 2] = (80, -80, -15) if stress in ("large", "slow") else (1, -1, 3)
    scan = replace(scan, A=torch.full_like(scan.A, A), delta=delta)

    assert_within(actual(scan), expected(scan))


def test_a_call_gives_the_same_bits_again_and_leaves_its_tensors_alone() -> None:
    scan = Case((2, 3), "+x,-y", channels=17, given=EVERY).scan()
    before = {name: x.clone() for name, x in scan.differentiable().items()}

    first, second = actual(scan), actual(scan)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], x) for name, x in scan.differentiable().items())


def test_checkpoints_are_the_states_before_every_64th_token() -> None:
    scan = Case((66,), batch=1, channels=2, states=3, given=()).scan()
    run = choose("triton", scan.u.device).load()
    start = {name: getattr(scan, name)[:, :, :64].cpu().double() for name in ("u", "delta", "B", "C")}

    slots = run.forward(scan)[2][:12].view(2, 3, 2)

    _, state = reference(replace(scan, **start, A=scan.A.cpu().double()))
    assert_within({"state": slots[1].cpu()}, {"state": state[0, 0, 0].mT})


def test_volumes_with_more_voxels_than_32_bits_count_are_refused() -> None:
    scan = Case(given=()).scan()
    run = choose("triton", scan.u.device).load()

    with pytest.raises(BackendUnavailableError, match=r"at most 2\*\*29 voxels, got 536870913"):
        run.forward(replace(scan, u=scan.u[:, :, :1].expand(-1, -1, 2**29 + 1, -1)))

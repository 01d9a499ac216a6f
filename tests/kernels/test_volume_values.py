"""Output, states and every gradient of a volume's scan against the loop over tokens in float64."""

from functools import partial
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, volume_scan_on
from tests.kernels.scan_cases import covering, in_double, outcome, single
from tests.kernels.volume_cases import OFTEN_LEFT_OUT, PER_ROUTE, VolumeCase
from tests.oracles.volume import scan_volume as oracle

HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32
VOLUMES = [
    ((7,), ("+x", "-x")),
    ((7,), ("shuffled", "-x")),
    ((7,), ("short", "samples")),
    ((7,), ("repeats", "+x", "-x")),
    ((3, 4), ("yx", "-y-x")),
    ((3, 4), ("+y", "-x")),
    ((3, 4), ("xy", "+x", "-y")),
    ((3, 4), ("y-x", "padded")),
    ((3, 4), ("-xy", "repeats")),
    ((2, 3, 2), ("zyx", "-z-y-x")),
    ((2, 3, 2), ("+z", "-y")),
    ((2, 3, 2), ("-x", "x-zy", "+y")),
    ((2, 3, 2), ("samples", "zx-y")),
    ((1, 3, 2), ("-y", "+z", "+x")),
]


def is_offered(volume: tuple[tuple[int, ...], tuple[str, ...]], merge: str, reset: Any, **options: Any) -> bool:
    space, routes = volume
    is_concat = merge == "concat" and any(options[name] for name in set(PER_ROUTE) - {"B", "C"})
    is_twice = merge in ("stack", "concat") and "repeats" in routes
    has_lines = len(space) > 1 and any(len(route.strip("+-")) == 1 for route in routes)
    is_short = reset is not None and "short" in routes  # it is filled up: then there are more pieces than it asks for
    return not is_concat and not is_twice and not is_short and not (reset == "offsets" and has_lines)


def as_case(options: dict[str, Any]) -> VolumeCase:
    space, routes = options.pop("volume")
    own = tuple(name for name in PER_ROUTE if options.pop(name))
    left_out = tuple(name for name in OFTEN_LEFT_OUT if not options.pop(f"has {name}"))
    if options["reset"] == "offsets":
        options["reset"] = (0, 1, 4, 4, prod(space))
    if options["decay_scale"]:
        options["decay_scale"] = (0.5, 2.0, 1.25)[: len(routes)]
    return VolumeCase(space, routes, channels=6, own=own, left_out=left_out, **options)


OPTIONS = [
    as_case(options)
    for options in covering(
        volume=tuple(VOLUMES),
        merge=("sum", "mean", "stack", "concat"),
        reset=(None, 2, "offsets"),
        weights=("", "k", "kb", "kd", "kbd"),
        exclusive=(None, "own", "shift"),
        exact_gain=(False, True),
        decay_scale=(None, True),
        delta_softplus=(True, False),
        **dict.fromkeys(PER_ROUTE, (False, True)),
        **{f"has {name}": (True, False) for name in OFTEN_LEFT_OUT},
        keep=is_offered,
    )
]


@each_backend
@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_all_options_of_a_volume_together_are_the_oracle(backend, case):
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    actual = outcome(scan, single(case), **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize(
    "case",
    [
        VolumeCase((65,), ("-x",), batch=1, channels=17, states=16),
        VolumeCase((5, 13), ("x-y", "+y", "-x", "samples"), own=("delta", "B"), exclusive="shift"),
        VolumeCase((5, 6, 7), ("-y-zx", "zyx"), batch=1, exact_gain=True, merge="concat", channels=4),
        VolumeCase((3, 70), ("-x", "+y", "repeats"), states=17, own=("u", "C"), weights="kbd", exclusive="own"),
        VolumeCase((2, 150), ("yx", "-y-x", "padded"), reset=97, channels=33, decay_scale=(0.5, 1.0, 2.0)),
        VolumeCase((300,), ("shuffled", "+x"), reset=(0, 3, 150, 150, 300), exclusive="shift", merge="stack"),
        VolumeCase((1500,), ("+x", "samples"), batch=1, states=1, channels=2, exact_gain=True),
    ],
    ids=str,
)
def test_volumes_of_many_tokens_channels_and_states_are_the_oracle(backend, case):
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    assert_within(outcome(scan, single(case), **case.options()), expected)


@each_backend
@pytest.mark.parametrize("own", [*PER_ROUTE, ()], ids=str)
@pytest.mark.parametrize("merge", ["sum", "stack"])
def test_any_tensor_may_belong_to_one_route_or_to_all(backend, own, merge):
    case = VolumeCase((3, 4), ("yx", "+y", "-x"), own=(own,) if own else (), merge=merge)
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    assert_within(outcome(scan, single(case), **case.options()), expected)


@each_backend
@pytest.mark.parametrize(
    "dtypes",
    [
        dict.fromkeys(VolumeCase((1,), ("+x",), weights="k").tensors(), HALF),
        dict.fromkeys(VolumeCase((1,), ("+x",), weights="k").tensors(), BRAIN),
        {"u": BRAIN, "delta": HALF, "z": FULL, "weights": HALF},
        {"A": BRAIN, "C": HALF, "initial_state": HALF, "weights": BRAIN},
    ],
    ids=["all half", "all brain", "mixed u", "mixed A"],
)
@pytest.mark.parametrize("merge", ["mean", "concat"])
def test_16_bit_volumes_are_scanned_in_float32(backend, dtypes, merge):
    case = VolumeCase((3, 5), ("-yx", "+y"), channels=8, merge=merge, weights="kbd", exact_gain=True)
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    tensors = {name: x.to(dtypes.get(name, FULL)) for name, x in tensors.items()}
    expected = outcome(partial(oracle, space=case.space), in_double(tensors), **case.options())

    actual = outcome(scan, tensors, **case.options())

    assert actual["y"].dtype == tensors["u"].dtype
    assert actual["last_state"].dtype == torch.float32
    assert all(actual[f"d{name}"].dtype == x.dtype for name, x in tensors.items())
    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_routes_add_up_in_float32_whatever_the_type_of_y(backend, merge):
    """Of many routes: one large output and its negative must not cost the small ones their digits."""
    case = VolumeCase((2, 2), ("yx",) * 7, batch=1, own=("C",), merge=merge, left_out=("D", "z", "initial_state"))
    scan, tensors = volume_scan_on(backend, case), {name: x.half() for name, x in case.tensors().items()}
    tensors["C"][0] = 1e4
    tensors["C"][1] = -1e4
    expected, _ = oracle(**in_double(tensors), **case.options(), space=case.space)

    y, _ = scan(**tensors, **case.options())

    assert_within({"y": y}, {"y": expected})


@each_backend
def test_float32_output_keeps_what_float16_cannot_hold(backend):
    case = VolumeCase((3, 4), ("yx", "-x"), merge="stack")
    scan, tensors = volume_scan_on(backend, case), {name: x.half() for name, x in case.tensors().items()}
    tensors["u"], tensors["C"] = tensors["u"] * 10000, tensors["C"] * 100
    expected, _ = oracle(**in_double(tensors), **case.options(), space=case.space)
    assert expected.abs().max() > 65504

    y, _ = scan(**tensors, **case.options(), out_dtype=FULL)

    assert_within({"y": y}, {"y": expected})


@each_backend
def test_float64_volumes_stay_float64(backend):
    case = VolumeCase((3, 4), ("yx", "-x", "padded"), exact_gain=True, exclusive="own", weights="kb")
    scan, tensors = volume_scan_on(backend, case, dtype=torch.float64), case.tensors()

    actual = outcome(scan, tensors, **case.options())

    assert_within(actual, outcome(partial(oracle, space=case.space), tensors, **case.options()))


@each_backend
@pytest.mark.parametrize("A", [0.0, -1e-7, -1e-3, -0.4, -0.6, -5.0, 0.3])
@pytest.mark.parametrize("delta", [1e-4, 1.0, 4.0])
def test_the_exact_gain_and_its_gradients_are_right_for_any_decay(backend, A, delta):
    case = VolumeCase((6,), ("+x",), delta_softplus=False, exact_gain=True, left_out=("delta_bias",))
    scan, tensors = volume_scan_on(backend, case), single(case)
    tensors["A"].fill_(A)
    tensors["delta"].fill_(delta)
    expected = outcome(partial(oracle, space=case.space), in_double(tensors), **case.options())

    assert_within(outcome(scan, tensors, **case.options()), expected)


@each_backend
def test_steps_that_are_scaled_are_decays_that_are_scaled(backend):
    """exp(r dt A) is both; the input enters r times as strong, so u makes up for it."""
    case, scale = VolumeCase((3, 4), ("yx", "-x"), own=("u", "A"), left_out=("D",)), (0.3, 1.7)
    scan, tensors = volume_scan_on(backend, case), single(case)
    factor = torch.tensor(scale).view(2, 1, 1)
    scaled = tensors | {"A": tensors["A"] * factor, "u": tensors["u"] * factor[..., None, None]}

    y, last = scan(**tensors, **case.options() | {"decay_scale": scale})

    expected = dict(zip(("y", "last"), (x.double() for x in scan(**scaled, **case.options())), strict=True))
    assert_within({"y": y, "last": last}, expected)


@each_backend
@pytest.mark.parametrize("wanted", [0, 1], ids=["y", "last states"])
def test_gradients_of_one_of_the_two_results_are_right(backend, wanted):
    case = VolumeCase((3, 4), ("yx", "-x"), weights="kd")
    scan = volume_scan_on(backend, case)

    def only(function):
        return lambda **given: [x if i == wanted else x.detach() for i, x in enumerate(function(**given))]

    expected = outcome(only(partial(oracle, space=case.space)), case.tensors(), **case.options())

    assert_within(outcome(only(scan), single(case), **case.options()), expected)


@each_backend
@pytest.mark.parametrize("space", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("batch", [2, 0])
def test_an_empty_volume_hands_the_states_on(backend, space, batch):
    letters = "zyx"[-len(space) :]
    case = VolumeCase(space, (letters, "".join(f"-{axis}" for axis in letters)), batch=batch, own=("A",))
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    actual = outcome(scan, single(case), **case.options())

    assert_within(actual, expected)
    assert torch.equal(actual["last_state"], tensors["initial_state"].float())


@each_backend
def test_an_empty_batch_has_empty_outputs_and_no_gradients(backend):
    case = VolumeCase((3, 4), ("yx", "+y", "shuffled"), batch=0, weights="kd", merge="stack")
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    assert_within(outcome(scan, single(case), **case.options()), expected)


def test_the_oracle_gives_what_is_worked_out_by_hand():
    """One channel and state, decay 1/2 per token of dt = 1, C = 2, u = [[4, 2], [1, 8]]."""
    half, one = torch.tensor([[0.5]]).double().log(), torch.ones(1, 2, 2, 1).double()
    u = torch.tensor([[4.0, 2.0], [1.0, 8.0]]).double().view(1, 2, 2, 1)
    given = {"u": u, "delta": one, "A": half, "B": one, "C": 2 * one}

    def scanned(*routes: str | Tensor, **options: Any) -> tuple[Any, Any]:
        y, last = oracle(**given, **options, space=(2, 2), routes=routes)
        return y.squeeze(-1).squeeze(-3).tolist(), last.flatten().tolist()

    assert scanned("yx") == ([[8, 8], [6, 19]], [9.5])  # states 4, 4, 3, 9.5
    assert scanned("-xy") == ([[17, 4], [10.5, 18]], [5.25])  # u is 2, 8, 4, 1: states 2, 9, 8.5, 5.25
    assert scanned("+y") == ([[8, 4], [6, 18]], [3, 9])  # states 4, 3 and 2, 9
    assert scanned(torch.tensor([3, -1, 0])) == ([[16, 0], [0, 16]], [8])  # states 8, 8
    assert scanned("yx", reset=3) == ([[8, 8], [6, 16]], [3, 8])
    assert scanned("yx", reset=torch.tensor([0, 1, 1, 4])) == ([[8, 4], [4, 18]], [4, 0, 9])  # states 4; 2, 2, 9
    assert scanned("yx", exclusive="own") == ([[0, 4], [4, 3]], [9.5])
    assert scanned("yx", exclusive="shift") == ([[0, 8], [8, 6]], [9.5])
    assert scanned("yx", decay_scale=[2]) == ([[16, 12], [7, 33.75]], [16.875])  # states 8, 6, 3.5, 16.875
    assert scanned("yx", "+y", merge="mean") == ([[8, 6], [6, 18.5]], [9.5, 0, 3, 9])
    assert scanned("yx", "+y", merge="stack") == ([[[8, 8], [6, 19]], [[8, 4], [6, 18]]], [9.5, 0, 3, 9])
    weighted = scanned("yx", "+y", weights=torch.tensor([2.0, 0.5]).double())
    assert weighted == ([[20, 18], [15, 47]], [9.5, 0, 3, 9])
    y, _ = scanned("yx", exact_gain=True)  # an input of 1 becomes (1 - 1/2) / log(2) = 0.72135
    assert y[0][0] == pytest.approx(8 * 0.72135, rel=1e-5)
    assert y[1][1] == pytest.approx(19 * 0.72135, rel=1e-5)

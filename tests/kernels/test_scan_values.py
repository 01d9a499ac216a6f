"""Output, states and every gradient against the loop over tokens in float64."""

import pytest
import torch

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, scan_on
from tests.kernels.scan_cases import Case, covering, outcome
from tests.oracles.scan import selective_scan as oracle

SHAPES = [
    Case(**shape)
    for shape in covering(
        keep=lambda batch, length, channels, states: batch * length * channels * states <= 2**19,
        length=(0, 1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, 2049),
        channels=(1, 3, 15, 16, 17, 64, 100),
        states=(1, 2, 8, 16, 17, 64),
        batch=(1, 0, 3),
    )
]
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
OPTIONS = [
    Case(
        batch=1 if option["ends"] else 2,
        length=37,
        channels=6,
        states=5,
        left_out=tuple(name for name in OPTIONAL if not option.pop(name)),
        **option,
    )
    for option in covering(
        B=(0, 1, 2, 6),
        C=(0, 1, 2, 3, 6),
        layout=("bdl", "bld"),
        delta_softplus=(True, False),
        reverse=(False, True),
        ends=((), (0, 1, 20, 20, 37)),
        **dict.fromkeys(OPTIONAL, (True, False)),
    )
]
HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32
ACTIVATIONS = ("u", "delta", "B", "C", "z")


@each_backend
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_a_scan_of_any_size_is_the_oracle(backend, case):
    scan, tensors = scan_on(backend, case), case.tensors()
    expected = outcome(oracle, tensors, **case.options())

    actual = outcome(scan, {name: x.float() for name, x in tensors.items()}, **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_all_options_together_are_the_oracle(backend, case):
    scan, tensors = scan_on(backend, case), case.tensors()
    expected = outcome(oracle, tensors, **case.options())

    actual = outcome(scan, {name: x.float() for name, x in tensors.items()}, **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.slow
def test_a_very_long_scan_is_the_oracle(backend):
    case = Case(batch=1, length=70001, channels=2, states=3)
    scan = scan_on(backend, case)
    tensors = case.tensors()
    expected = outcome(oracle, tensors, **case.options())

    actual = outcome(scan, {name: x.float() for name, x in tensors.items()}, **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize(
    "dtypes",
    [
        dict.fromkeys(Case(1, 1, 1, 1).tensors(), HALF),
        dict.fromkeys(Case(1, 1, 1, 1).tensors(), BRAIN),
        dict.fromkeys(ACTIVATIONS, HALF),
        dict.fromkeys(ACTIVATIONS, BRAIN),
        {"u": BRAIN, "delta": HALF, "z": FULL},
        {"A": BRAIN, "C": HALF, "initial_state": HALF},
    ],
    ids=["all half", "all brain", "half activations", "brain activations", "mixed u", "mixed A"],
)
def test_16_bit_tensors_are_scanned_in_float32(backend, dtypes):
    case = Case(batch=2, length=65, channels=17, states=8)
    scan = scan_on(backend, case)
    tensors = {name: x.to(dtypes.get(name, FULL)) for name, x in case.tensors().items()}
    expected = outcome(oracle, {name: x.double() for name, x in tensors.items()}, **case.options())

    actual = outcome(scan, tensors, **case.options())

    assert actual["y"].dtype == tensors["u"].dtype
    assert actual["last_state"].dtype == torch.float32
    assert all(actual[f"d{name}"].dtype == x.dtype for name, x in tensors.items())
    assert_within(actual, expected)


@each_backend
def test_float64_stays_float64(backend):
    case = Case(batch=2, length=300, channels=3, states=4)
    scan = scan_on(backend, case, dtype=torch.float64)
    tensors = case.tensors()

    assert_within(outcome(scan, tensors, **case.options()), outcome(oracle, tensors, **case.options()))


@each_backend
def test_one_float64_tensor_makes_the_arithmetic_float64(backend):
    case = Case(batch=1, length=40, channels=3, states=4)
    scan = scan_on(backend, case, dtype=torch.float64)
    tensors = {name: x if name == "A" else x.float() for name, x in case.tensors().items()}
    expected = outcome(oracle, {name: x.double() for name, x in tensors.items()}, **case.options())

    actual = outcome(scan, tensors, **case.options())

    assert actual["last_state"].dtype == torch.float64
    assert_within(actual, expected)


@each_backend
def test_float32_output_keeps_what_float16_cannot_hold(backend):
    case = Case(batch=1, length=20, channels=4, states=3)
    scan = scan_on(backend, case)
    tensors = {name: x.half() for name, x in case.tensors().items()}
    tensors["u"], tensors["C"] = tensors["u"] * 10000, tensors["C"] * 100
    expected, _ = oracle(**{name: x.double() for name, x in tensors.items()}, **case.options())
    assert expected.abs().max() > 65504

    y, _ = scan(**tensors, **case.options(), out_dtype=torch.float32)

    assert_within({"y": y}, {"y": expected})


@each_backend
@pytest.mark.parametrize("wanted", [0, 1], ids=["y", "last state"])
def test_gradients_of_one_of_the_two_results_are_right(backend, wanted):
    case = Case(batch=2, length=33, channels=3, states=4)
    scan = scan_on(backend, case)

    def only(function):
        return lambda **given: [x if i == wanted else x.detach() for i, x in enumerate(function(**given))]

    expected = outcome(only(oracle), case.tensors(), **case.options())

    actual = outcome(only(scan), {name: x.float() for name, x in case.tensors().items()}, **case.options())

    assert_within(actual, expected)


def test_the_oracle_gives_what_is_worked_out_by_hand():
    half = torch.tensor([[[0.5]]]).double().log()  # one channel, one state, decay 1/2 per token of dt = 1
    ones = torch.ones(1, 1, 3).double()
    u = torch.tensor([[[4.0, 2.0, 1.0]]]).double()

    y, last = oracle(u, ones, half[0], ones, 2 * ones, D=torch.tensor([10.0]).double())

    assert y.tolist() == [[[48.0, 28.0, 16.0]]]  # states 4, 4, 3
    assert last.tolist() == [[[3.0]]]

"""What must not change a scan, or change it in a known way."""

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, scan_on
from tests.kernels.scan_cases import Case, equal, in_double, outcome, single
from tests.oracles.scan import selective_scan as oracle
from umamba_seg.kernels import selective_scan, selective_scan_fn

ALONG_TOKENS = ("u", "delta", "B", "C", "z")  # last axis in the layout bdl, when B and C vary


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_scan_has_the_same_bits_whenever_it_runs(backend, threads):
    case = Case(batch=2, length=1500, channels=40, states=16)
    scan = scan_on(backend, case)
    torch.set_num_threads(threads)

    once = outcome(scan, single(case), **case.options(), deterministic=True)

    assert equal(once, outcome(scan, single(case), **case.options(), deterministic=True))


@each_backend
def test_the_number_of_threads_changes_no_more_than_rounding(backend):
    case = Case(batch=2, length=1500, channels=40, states=16)
    scan = scan_on(backend, case)
    expected = in_double(outcome(scan, single(case), **case.options()))
    torch.set_num_threads(3)

    assert_within(outcome(scan, single(case), **case.options()), expected)


@each_backend
def test_two_python_threads_can_scan_at_once(backend):
    cases = [Case(2, length, 5, 4) for length in (700, 900)]
    scan = scan_on(backend, *cases)
    alone = [outcome(scan, single(case), **case.options()) for case in cases]
    together: dict[int, dict[str, Tensor]] = {}

    def work(i: int) -> None:
        together[i] = outcome(scan, single(cases[i]), **cases[i].options())

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert all(equal(alone[i], together[i]) for i in range(2))


@each_backend
@pytest.mark.parametrize("reverse", [False, True])
def test_two_halves_with_the_state_carried_are_the_whole(backend, reverse):
    case, cut = Case(batch=2, length=1300, channels=3, states=4, reverse=reverse), 700
    scan = scan_on(backend, case)

    def in_halves(initial_state: Tensor, **given: Tensor | bool | str) -> tuple[Tensor, Tensor]:
        fixed = {name: x for name, x in given.items() if name not in ALONG_TOKENS}
        pieces = [{name: given[name][..., part] for name in ALONG_TOKENS} for part in (slice(cut), slice(cut, None))]
        ys, state = [], initial_state
        for piece in reversed(pieces) if reverse else pieces:
            y, state = scan(**piece, **fixed, initial_state=state)
            ys.append(y)
        return torch.cat(ys[::-1] if reverse else ys, dim=-1), state

    halves = outcome(in_halves, single(case), **case.options())

    assert_within(halves, in_double(outcome(scan, single(case), **case.options())))


@each_backend
def test_reverse_is_flip_scan_flip(backend):
    case = Case(batch=2, length=70, channels=3, states=4)
    scan = scan_on(backend, case)

    def flipped(**given: Tensor | bool | str) -> tuple[Tensor, Tensor]:
        y, last = scan(**{name: x.flip(-1) if name in ALONG_TOKENS else x for name, x in given.items()})
        return y.flip(-1), last

    expected = outcome(flipped, single(case), **case.options())

    assert equal(outcome(scan, single(case), **case.options() | {"reverse": True}), expected)


@each_backend
@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_are_one_call_each(backend, layout, reverse):
    ends = (0, 1, 1, 600, 617, 1300)
    case = Case(1, 1300, 3, 4, layout=layout, reverse=reverse, ends=ends)
    scan, axis = scan_on(backend, case), 1 if layout == "bld" else 2

    def one_by_one(cu_seqlens: Tensor, initial_state: Tensor, **given: Tensor | bool | str) -> tuple[Tensor, Tensor]:
        results = []
        for i in range(len(ends) - 1):
            narrowed = {name: given[name].narrow(axis, ends[i], ends[i + 1] - ends[i]) for name in ALONG_TOKENS}
            results.append(scan(**given | narrowed, initial_state=initial_state[i : i + 1]))
        return torch.cat([y for y, _ in results], dim=axis), torch.cat([last for _, last in results])

    expected = outcome(one_by_one, single(case), **case.options())

    assert_within(outcome(scan, single(case), **case.options()), in_double(expected))


@each_backend
def test_padding_tokens_leave_the_state_as_it_is(backend):
    """To the bit: a decay of exp(0) that is not exactly 1 would wear the state away."""
    case = Case(2, 300, 3, 4, delta_softplus=False, left_out=("delta_bias",))
    scan = scan_on(backend, case)
    tensors = single(case)
    tensors["delta"].zero_()

    _, last = scan(**tensors)

    assert torch.equal(last, tensors["initial_state"])


@each_backend
@pytest.mark.parametrize("layout", ["bdl", "bld"])
def test_any_strides_and_offsets_will_do(backend, layout):
    case = Case(batch=2, length=33, channels=4, states=3, B=2, C=0, layout=layout)
    scan = scan_on(backend, case)

    def scattered(x: Tensor) -> Tensor:
        """The same values, spread over more memory than they need, the axes in another order."""
        room = x.new_full([2 * size + 1 for size in reversed(x.shape)], torch.nan)
        view = room.permute(*reversed(range(x.dim())))[tuple(slice(1, None, 2) for _ in x.shape)]
        return view.copy_(x)

    expected = scan(**single(case), **case.options())

    actual = scan(**{name: scattered(x) for name, x in single(case).items()}, **case.options())

    names = ("y", "last_state")
    assert_within(dict(zip(names, actual, strict=True)), in_double(dict(zip(names, expected, strict=True))))


@each_backend
def test_expanded_tensors_are_scanned_and_get_the_sum_of_gradients(backend):
    case = Case(batch=3, length=33, channels=4, states=3)
    scan = scan_on(backend, case)
    tensors = single(case)
    tensors |= {name: tensors[name][:1] for name in ("u", "B", "initial_state")}
    tensors["D"] = tensors["D"][:1]

    def spread(u: Tensor, B: Tensor, D: Tensor, initial_state: Tensor, copy: bool, **given) -> tuple[Tensor, Tensor]:
        wide = {"u": u.expand(3, -1, -1), "B": B.expand(3, -1, -1), "D": D.expand(4)}
        wide["initial_state"] = initial_state.expand(3, -1, -1)
        return scan(**{name: x.contiguous() if copy else x for name, x in wide.items()}, **given)

    expected = outcome(spread, tensors, copy=True, **case.options())

    assert equal(outcome(spread, tensors, copy=False, **case.options()), expected)


@each_backend
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("softplus", [True, False])
def test_inputs_are_left_untouched(backend, softplus, bias):
    case = Case(2, 40, 3, 4, layout="bld", delta_softplus=softplus, left_out=() if bias else ("delta_bias", "D"))
    scan = scan_on(backend, case)
    tensors = {name: x.requires_grad_() for name, x in single(case).items()}
    before = {name: x.detach().clone() for name, x in tensors.items()}

    y, last = scan(**tensors, **case.options())
    (y.sum() + last.sum()).backward()

    assert equal({name: x.detach() for name, x in tensors.items()}, before)


@each_backend
def test_offsets_beyond_32_bits_reach_the_right_tokens(backend, tmp_path: Path):
    case, far = Case(1, 3, 1, 2, layout="bld"), 2**30 + 7
    scan = scan_on(backend, case)
    tensors = single(case)
    sparse = torch.from_file(str(tmp_path / "u"), shared=True, size=2 * far + 1, dtype=torch.float16)
    u = sparse.as_strided((1, 3, 1), (0, far, 1))
    u.copy_(tensors["u"])
    expected = scan(**tensors | {"u": u.contiguous()}, **case.options())

    actual = scan(**tensors | {"u": u}, **case.options())

    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@each_backend
@pytest.mark.parametrize("delta", [-100.0, 100.0, 0.0, 1e3])
@pytest.mark.parametrize("A", [-1e4, -1e-6])
def test_extreme_steps_and_decays_stay_right(backend, A, delta):
    case = Case(2, 80, 3, 2, delta_softplus=abs(delta) == 100, left_out=("delta_bias",))
    scan = scan_on(backend, case)
    tensors = single(case)
    tensors["A"].fill_(A)
    tensors["delta"].fill_(delta)
    expected = outcome(oracle, in_double(tensors), **case.options())

    actual = outcome(scan, tensors, **case.options())

    assert_within(actual, expected)


@each_backend
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("x", [-20.0, -16.7, -10.0, -1e-3, 0.0, 1e-3, 10.0, 20.1, 50.0])
def test_softplus_and_its_derivative_are_right_everywhere(backend, x, dtype, precision):
    """One token, one state, B = C = 1 and no past: y = softplus(delta) u."""
    scan = scan_on(backend, dtype=dtype)
    one, delta = torch.ones(1, 1, 1, dtype=dtype), torch.full((1, 1, 1), x, dtype=dtype, requires_grad=True)
    exact = delta.detach().double().squeeze()

    y, _ = scan(one, delta, -one[0], one, one, delta_softplus=True)
    y.backward()

    torch.testing.assert_close(y.double().item(), torch.log1p(exact.exp()).item(), rtol=precision, atol=0)
    torch.testing.assert_close(delta.grad.double().item(), exact.sigmoid().item(), rtol=precision, atol=0)


@each_backend
def test_nan_stays_in_its_channel_and_batch_item(backend):
    case = Case(batch=3, length=600, channels=4, states=3)
    scan = scan_on(backend, case)
    clean, tensors = single(case), single(case)
    tensors["u"][1, 2, 5] = torch.nan

    actual, expected = (outcome(scan, x, **case.options()) for x in (tensors, clean))

    assert actual["y"][1, 2, 5:].isnan().all()
    assert actual["last_state"][1, 2].isnan().all()
    assert torch.equal(actual["y"][..., :5], expected["y"][..., :5])
    for name in ("y", "last_state", "du", "ddelta", "dz", "dinitial_state"):
        actual[name][1, 2] = expected[name][1, 2]
        assert torch.equal(actual[name], expected[name])
    for name in ("dB", "dC"):
        assert torch.equal(actual[name][[0, 2]], expected[name][[0, 2]])


@each_backend
def test_a_channel_without_input_stays_zero_where_growth_overflows(backend):
    case = Case(1, 500, 2, 2, delta_softplus=False, left_out=("initial_state", "delta_bias"))
    scan = scan_on(backend, case)
    tensors = single(case)
    tensors["A"].fill_(1.0)
    tensors["delta"].fill_(10.0)
    tensors["u"].zero_()

    y, last = scan(**tensors)

    assert not y.any()
    assert not last.any()


def test_the_function_of_mamba_ssm_is_the_same_scan():
    case = Case(batch=2, length=20, channels=4, states=3, left_out=("initial_state",))
    tensors = single(case)
    expected = selective_scan(**tensors, delta_softplus=True, return_last_state=True)
    in_order = [tensors[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]

    y, last = selective_scan_fn(*in_order, True, True)

    assert torch.equal(y, expected[0])
    assert torch.equal(last, expected[1])
    assert torch.equal(selective_scan_fn(*in_order, delta_softplus=True), y)

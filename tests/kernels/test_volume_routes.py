"""In which order a volume is walked, and what must not change that."""

from functools import partial
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from tests.kernels.closeness import assert_within
from tests.kernels.scan_backends import each_backend, is_interpreted, scan_on, volume_scan_on
from tests.kernels.scan_cases import equal, in_double, outcome, single
from tests.kernels.volume_cases import VolumeCase
from tests.oracles.volume import lines_of
from tests.oracles.volume import scan_volume as oracle

SIGNED = {axes: tuple(product("+-", repeat=len(axes))) for axes in ("x", "xy", "xyz")}
RASTERS = [  # all with one order of the axes, in every direction
    tuple("".join(sign + axis for sign, axis in zip(signs, order, strict=True)) for signs in SIGNED[axes])
    for axes in ("x", "xy", "xyz")
    for order in permutations(axes)
]
LINES = [("+x", "-x"), ("+y", "-y", "+x", "-x"), ("+z", "-z", "+y", "-y", "+x", "-x")]
SPACES = {1: [(5,), (1,)], 2: [(3, 4), (1, 3), (4, 1)], 3: [(2, 3, 4), (1, 3, 2), (3, 1, 1)]}


def case_of(space: tuple[int, ...], routes: tuple[str, ...], **options) -> VolumeCase:
    return VolumeCase(space, routes, batch=1, channels=2, merge="stack", **options)


WALKS = [
    case_of(space, routes)
    for routes in RASTERS + LINES
    for space in SPACES[len({letter for route in routes for letter in route} - {*"+-"})]
]


def permuted_and_flipped(x: Tensor, route: str) -> Tensor:
    """The tokens of a volume (b, *space, c) along a raster: (b, l, c)."""
    names = "zyx"[3 - (x.dim() - 2) :]
    axes, signs = [1 + names.index(axis) for axis in route[1::2]], route[::2]
    x = x.permute(0, *axes, x.dim() - 1)
    return x.flip([1 + i for i, sign in enumerate(signs) if sign == "-"]).flatten(1, -2)


@each_backend
@pytest.mark.parametrize("case", WALKS, ids=str)
def test_every_route_is_the_oracle(backend, case):
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    expected = outcome(partial(oracle, space=case.space), tensors, **case.options())

    assert_within(outcome(scan, single(case), **case.options()), expected)


@each_backend
@pytest.mark.parametrize("routes", RASTERS, ids=str)
def test_every_raster_is_permute_flip_and_scan(backend, routes):
    case = case_of(SPACES[len(routes[0]) // 2][0], routes)
    scan, along = volume_scan_on(backend, case), partial(scan_on(backend, case), layout="bld", delta_softplus=True)
    tensors = {name: x for name, x in single(case).items() if name != "initial_state"}
    wide = ("u", "delta", "B", "C", "z")

    y, _ = scan(**tensors, **case.options())

    for i, route in enumerate(routes):
        in_order = {name: permuted_and_flipped(x, route) if name in wide else x for name, x in tensors.items()}
        expected, _ = along(**in_order)
        assert_within({"y": permuted_and_flipped(y[i], route)}, {"y": expected.double()})


def test_there_are_48_rasters_of_three_axes():
    walked = {tuple(lines_of(route, (2, 3, 4))[0]) for routes in RASTERS for route in routes if len(route) == 6}

    assert len(walked) == 48


@each_backend
@pytest.mark.parametrize("routes", [("yx", "+y+x"), ("-yx", "-y+x"), ("x", "+x")], ids=str)
def test_a_plus_means_nothing(backend, routes):
    case = case_of((3, 4), routes, left_out=("initial_state",))
    scan = volume_scan_on(backend, case)

    y, last = scan(**single(case), **case.options())

    assert torch.equal(y[0], y[1])
    assert torch.equal(last[0], last[1])


@each_backend
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_a_table_of_a_raster_is_the_raster(backend, dtype):
    case = case_of((3, 4), ("y-x", "-xy"), left_out=("initial_state",))
    scan, tensors = volume_scan_on(backend, case), single(case)
    tables = [torch.tensor(lines_of(route, case.space)[0], dtype=dtype) for route in case.routes]
    expected = in_double(outcome(scan, tensors, **case.options()))

    assert_within(outcome(scan, tensors, **case.options() | {"routes": tables}), expected)


@each_backend
@pytest.mark.parametrize(
    ("route", "window", "ends"),
    [
        ("yx", 5, (0, 5, 10, 12)),
        ("-xy", 4, (0, 4, 8, 12)),
        ("-y-x", 12, (0, 12)),
        ("yx", 100, (0, 12)),
        ("shuffled", 7, (0, 7, 12)),
    ],
)
def test_a_window_ends_after_so_many_tokens(backend, route, window, ends):
    case, cut = (VolumeCase((3, 4), (route,), reset=reset) for reset in (window, ends))
    scan, tensors = volume_scan_on(backend, case), single(case)
    expected = in_double(outcome(scan, tensors, **cut.options()))

    assert_within(outcome(scan, tensors, **case.options()), expected)


@each_backend
def test_windows_of_lines_are_counted_from_the_start_of_each(backend):
    case = VolumeCase((3, 5), ("-x",), reset=2)
    scan, tensors = volume_scan_on(backend, case), single(case)
    table = torch.tensor(lines_of("-x", case.space)).flatten()
    ends = torch.tensor([0, 2, 4, 5, 7, 9, 10, 12, 14, 15])
    expected = in_double(outcome(scan, tensors, **case.options() | {"routes": [table], "reset": ends}))

    assert_within(outcome(scan, tensors, **case.options()), expected)


@each_backend
def test_each_route_may_start_anew_where_it_likes(backend):
    case = VolumeCase((3, 4), ("yx", "+y", "-xy", "shuffled", "xy"), reset=3)
    scan, tensors = volume_scan_on(backend, case), case.tensors()
    resets = [None, 2, torch.tensor([0, 7, 12, 12, 12]), torch.tensor([0, 1, 1, 5, 9]), 5]
    tensors["initial_state"] = tensors["initial_state"].repeat(1, 1, 2, 1, 1)[:, :, :8]  # of the second
    options = case.options() | {"reset": resets}
    expected = outcome(partial(oracle, space=case.space), tensors, **options)

    actual = outcome(scan, {name: x.float() for name, x in tensors.items()}, **options)

    assert_within(actual, expected)
    assert not actual["dinitial_state"][0, :, 1:].any()


@each_backend
def test_two_halves_of_a_table_with_the_states_carried_are_the_whole(backend):
    case = VolumeCase((3, 4), ("shuffled",), weights="k")
    scan, tensors, (table,) = volume_scan_on(backend, case), single(case), case.options()["routes"]

    def in_halves(initial_state: Tensor, **given) -> tuple[Tensor, Tensor]:
        first, state = scan(**given | {"routes": [table[:5]]}, initial_state=initial_state)
        second, state = scan(**given | {"routes": [table[5:]]}, initial_state=state)
        return first + second, state

    halves = outcome(in_halves, tensors, **case.options())

    assert_within(halves, in_double(outcome(scan, tensors, **case.options())))


@each_backend
@pytest.mark.parametrize("exclusive", [None, "own", "shift"])
@pytest.mark.parametrize("exact_gain", [False, True])
@pytest.mark.parametrize("is_per_sample", [False, True])
def test_voxels_that_no_token_names_are_not_read_and_get_nothing(backend, exclusive, exact_gain, is_per_sample):
    table = torch.tensor([-1, 4, -1, -1, 2, 5, 3, -1])  # neither voxel 0, which a -1 could be taken for, nor 1
    tables = torch.stack([table, table.roll(1)]) if is_per_sample else table
    case = VolumeCase((2, 3), ("yx",), exclusive=exclusive, exact_gain=exact_gain, weights="k")
    scan, tensors = volume_scan_on(backend, case), single(case)
    options = case.options() | {"routes": [tables]}
    expected = outcome(scan, tensors, **options)
    for name in ("u", "delta", "B", "C", "z"):
        tensors[name][:, 0, :2] = torch.nan

    actual = outcome(scan, tensors, **options)

    assert equal(actual, expected)
    for name in ("y", "du", "ddelta", "dB", "dC", "dz"):
        assert not actual[name][:, 0, :2].any()


@each_backend
def test_tokens_that_are_not_there_change_no_bit_of_the_state(backend):
    case = VolumeCase((2, 3), ("yx",))
    scan, tensors = volume_scan_on(backend, case), single(case)

    y, last = scan(**tensors, **case.options() | {"routes": [torch.full((40,), -1)]})

    assert torch.equal(last, tensors["initial_state"])
    assert not y.any()


@each_backend
def test_a_shifted_output_is_that_of_the_token_before(backend):
    case = case_of((3, 4), ("-xy", "+y", "padded"), left_out=("D", "z"))
    scan, tensors = volume_scan_on(backend, case), single(case)
    own, _ = scan(**tensors, **case.options())

    y, _ = scan(**tensors, **case.options() | {"exclusive": "shift"})

    lines = [
        lines_of("-xy", case.space),
        lines_of("+y", case.space),
        [[v for v in case.options()["routes"][2].tolist() if v >= 0]],
    ]
    for k, tokens in enumerate(lines):
        before = {line[i]: line[i - 1] for line in tokens for i in range(1, len(line))}
        rows, shifted = own[k].flatten(1, 2), y[k].flatten(1, 2)
        for voxel in range(12):
            expected = rows[:, before[voxel]] if voxel in before else torch.zeros_like(rows[:, 0])
            torch.testing.assert_close(shifted[:, voxel], expected)


@each_backend
@pytest.mark.parametrize("weights", ["", "k", "kbd"])
def test_merges_are_made_of_the_stack(backend, weights):
    case = VolumeCase((3, 4), ("yx", "-x", "shuffled"), weights=weights)
    scan, tensors = volume_scan_on(backend, case), single(case)
    plain = {name: x for name, x in tensors.items() if name != "weights"}

    def stacked(merge: str, weights: Tensor | None = None, **given) -> tuple[Tensor, Tensor]:
        y, last = scan(**given, merge="stack")
        if weights is not None:
            y = y * (weights.view(3, 1, 1, 1, 1) if weights.dim() == 1 else weights.movedim(1, 0)[:, :, None, None])
        return y.mean(0) if merge == "mean" else y.sum(0), last

    assert plain.keys() <= tensors.keys()
    for merge in ("sum", "mean"):
        options = case.options() | {"merge": merge}
        assert_within(outcome(scan, tensors, **options), in_double(outcome(stacked, tensors, **options)))


@each_backend
def test_concat_gives_each_route_its_channels(backend):
    case = VolumeCase((3, 4), ("yx", "-x", "shuffled"), channels=6, merge="concat", own=("B",))
    scan, tensors, routes = volume_scan_on(backend, case), single(case), case.options()["routes"]

    def one_by_one(**given) -> tuple[Tensor, Tensor]:
        results = []
        for k, route in enumerate(routes):
            part = slice(2 * k, 2 * k + 2)
            own = {name: given[name][..., part] for name in ("u", "delta", "z")}
            own |= {name: given[name][part] for name in ("A", "D", "delta_bias")} | {
                "B": given["B"][k],
                "C": given["C"],
            }
            pieces = (1, 3, 1)[k]
            own["initial_state"] = given["initial_state"][k : k + 1, :, :pieces]
            y, last = scan(**own, routes=[route], delta_softplus=True)
            results.append((y, torch.nn.functional.pad(last, (0, 0, 0, 0, 0, 3 - pieces))))
        return torch.cat([y for y, _ in results], dim=-1), torch.cat([last for _, last in results])

    expected = outcome(one_by_one, tensors, **case.options())

    assert_within(outcome(scan, tensors, **case.options()), in_double(expected))


@each_backend
def test_any_strides_and_offsets_will_do(backend):
    case = VolumeCase((3, 4), ("yx", "-x", "padded"), own=("u", "B", "delta_bias"), weights="kbd")
    scan, tensors = volume_scan_on(backend, case), single(case)

    def scattered(x: Tensor) -> Tensor:
        """The same values, spread over more memory than they need, the axes in another order."""
        room = x.new_full([2 * size + 1 for size in reversed(x.shape)], torch.nan)
        return room.permute(*reversed(range(x.dim())))[tuple(slice(1, None, 2) for _ in x.shape)].copy_(x)

    def of_scattered(**given) -> tuple[Tensor, Tensor]:
        return scan(**{name: scattered(x) if isinstance(x, Tensor) else x for name, x in given.items()})

    expected = outcome(scan, tensors, **case.options())

    assert_within(outcome(of_scattered, tensors, **case.options()), in_double(expected))


CHANNELS_FIRST = [
    VolumeCase((2, 3, 2), ("zyx", "-y", "x-zy"), exclusive="own"),
    VolumeCase((20,), ("+x", "-x")),  # a row is walked where it lies, and a second route adds to what the first wrote
    VolumeCase((20,), ("+x", "+x")),
]


@each_backend
@pytest.mark.parametrize("case", CHANNELS_FIRST, ids=str)
def test_channels_first_memory_is_no_obstacle_and_gradients_lie_like_it(backend, case):
    scan, tensors = volume_scan_on(backend, case), single(case)
    expected = in_double(outcome(scan, tensors, **case.options()))
    for name in ("u", "delta", "z", "B"):
        tensors[name] = tensors[name].movedim(-1, 1).contiguous().movedim(1, -1)

    actual = outcome(lambda **given: scan(**given), tensors, **case.options())

    assert_within(actual, expected)
    assert all(actual[f"d{name}"].stride() == x.stride() for name, x in tensors.items())
    assert actual["y"].stride() == tensors["u"].stride()


@each_backend
def test_expanded_tensors_are_scanned_and_get_the_sum_of_gradients(backend):
    case = VolumeCase((3, 4), ("yx", "-x"), own=("delta",), weights="kbd")
    scan, tensors = volume_scan_on(backend, case), single(case)
    tensors |= {"u": tensors["u"][:1, :1], "delta": tensors["delta"][:1], "weights": tensors["weights"][:, :1]}

    def spread(u: Tensor, delta: Tensor, weights: Tensor, copy: bool, **given) -> tuple[Tensor, Tensor]:
        wide = {
            "u": u.expand(2, 3, -1, -1),
            "delta": delta.expand(2, -1, -1, -1, -1),
            "weights": weights.expand(-1, 2, -1),
        }
        return scan(**{name: x.contiguous() if copy else x for name, x in wide.items()}, **given)

    expected = outcome(spread, tensors, copy=True, **case.options())

    assert equal(outcome(spread, tensors, copy=False, **case.options()), expected)


@each_backend
def test_inputs_are_left_untouched(backend):
    case = VolumeCase((3, 4), ("yx", "padded"), weights="kd")
    scan, tensors = volume_scan_on(backend, case), {name: x.requires_grad_() for name, x in single(case).items()}
    before, options = {name: x.detach().clone() for name, x in tensors.items()}, case.options()
    table = options["routes"][1].clone()

    y, last = scan(**tensors, **options)
    (y.sum() + last.sum()).backward()

    assert equal({name: x.detach() for name, x in tensors.items()}, before)
    assert torch.equal(options["routes"][1], table)


@each_backend
@pytest.mark.parametrize("threads", [1, 3])
def test_a_volume_gives_the_same_bits_whenever_it_is_scanned(backend, threads):
    case = VolumeCase((5, 13), ("yx", "+y", "repeats", "samples"), channels=16, states=8, own=("A",))
    case = case if not is_interpreted(backend) else VolumeCase((3, 4), case.routes)
    scan = volume_scan_on(backend, case)
    torch.set_num_threads(threads)

    once = outcome(scan, single(case), **case.options(), deterministic=True)

    assert equal(once, outcome(scan, single(case), **case.options(), deterministic=True))

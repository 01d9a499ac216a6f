# mypy: ignore-errors
# What triton compiles is Python in form only: it has no annotations, and tuples that grow.
# ruff: noqa: RUF005 - triton does not compile (*tuple, x)
"""What the kernels are made of: arithmetic, the walk along a route, and access to memory.

A program is one warp and owns one or two sets of 32 channels of one route and batch item, a thread one channel of each.
The states of a channel are tuples of 1-D tensors and so live in registers; a sum over states is a plain sum, without
shuffles. B and C of a token, which all its channels share, are loaded once, one state by each lane, and handed round.
Voxels, tokens and pieces are counted in 32 bits, and so are offsets inside one batch item, which saves registers and
most of the arithmetic of addresses; where an item is too large for that (FAR), and between items, offsets have 64.

No function of triton.language that is itself jitted is used: those are compiled or interpreted by what the environment
said when triton was first imported, which may be before this package was.
"""

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1 / math.log(2))
LN2 = tl.constexpr(math.log(2))
STEP = tl.constexpr(64)  # tokens between two checkpoints: problem.CHECKPOINT_STEP


class Array(NamedTuple):
    """A tensor with the axes (k, b, v, d, n) and how far a step along each goes; 0 where it is the same for all.

    v may be pieces, d groups of channels. Strides are compiled in where they are 1 and known as multiples of 16, which
    is what lets two channels be loaded at once.
    """

    memory: Any
    route: int
    batch: int
    place: int
    channel: int
    state: int


class Path(NamedTuple):
    """The routes of a launch. Flat, since Triton 3.6 loses numbers of tuples inside tuples.

    Args:
        numbers: (k, fields), int64; the fields are named below.
        scale: (k,), float32, what dt is multiplied with.
        table: (tables, b or 1, t), int64, contiguous; None where loops tell the voxel.
        table_rows: How far it is from one table to the next.
        table_items: And from one batch item to the next; 0 where they share a table.
        offsets: (cuts, s + 1), int64; None where run and window tell the pieces.
        offsets_row: How far it is from one row of offsets to the next.
    """

    numbers: Any
    scale: Any
    table: Any
    table_rows: int
    table_items: int
    offsets: Any
    offsets_row: int


FIELDS = tl.constexpr(14)
FAST_COUNT, MID_COUNT = tl.constexpr(0), tl.constexpr(1)
FAST_STRIDE, MID_STRIDE, SLOW_STRIDE, START = tl.constexpr(2), tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
RUN, WINDOW, PIECES_OF_A_RUN, PIECES = tl.constexpr(6), tl.constexpr(7), tl.constexpr(8), tl.constexpr(9)
CHECKPOINTS, SLOTS = tl.constexpr(10), tl.constexpr(11)  # where those of a route begin, and how many an item has
TABLE_ROW, OFFSETS_ROW = tl.constexpr(12), tl.constexpr(13)


@triton.jit
def field(path, route, index: tl.constexpr):
    """One number of a route."""
    return tl.load(path.numbers + route * FIELDS + index).to(tl.int32)


# Arithmetic


@triton.jit
def softplus(x):
    """softplus(x) = max(x, 0) + log1p(exp(-|x|)), and its derivative. log1p is a polynomial: no logarithm unit."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    p = 0.005364810582250357 * e - 0.030065739527344704
    p = p * e + 0.07920445501804352
    p = p * e - 0.13753795623779297
    p = p * e + 0.19153651595115662
    p = p * e - 0.24857163429260254
    p = p * e + 0.3332132399082184
    p = p * e - 0.49999648332595825
    p = p * e + 1.0
    return e * p + tl.maximum(x, 0.0), tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(-x * LOG2E))


@triton.jit
def relative_gain(x, decay):
    """(exp(x) - 1) / x, 1 at 0, given exp(x); a series where the difference would cancel."""
    p = 1 / 40320 * x + 1 / 5040
    p = p * x + 1 / 720
    p = p * x + 1 / 120
    p = p * x + 1 / 24
    p = p * x + 1 / 6
    p = p * x + 1 / 2
    p = p * x + 1.0
    is_small = tl.abs(x) < 0.5
    return tl.where(is_small, p, (decay - 1.0) / tl.where(is_small, 1.0, x))


@triton.jit
def relative_gain_slope(x, decay):
    """The derivative of `relative_gain`."""
    p = 1 / 5760 * x + 1 / 840
    p = p * x + 1 / 144
    p = p * x + 1 / 30
    p = p * x + 1 / 8
    p = p * x + 1 / 3
    p = p * x + 1 / 2
    is_small = tl.abs(x) < 0.5
    y = tl.where(is_small, 1.0, x)
    return tl.where(is_small, p, (decay - (decay - 1.0) / y) / y)


@triton.jit
def step_size(x, scale, here, SOFTPLUS: tl.constexpr):
    """dt of a token, 0 where there is none, and its derivative by x, which is delta + bias."""
    if SOFTPLUS:
        dt, slope = softplus(x)
        return tl.where(here, dt * scale, 0.0), slope * scale
    else:
        return tl.where(here, x * scale, 0.0), tl.where(here, scale, 0.0)


@triton.jit
def gained(x, exponent, decay, EXACT: tl.constexpr):
    """With which weight u enters for B = 1: dt * u, or (exp(dt * A) - 1) / A * u."""
    if EXACT:
        return x * relative_gain(exponent * LN2, decay)
    else:
        return x


@triton.jit
def sum_over_lanes(values, lanes, LEVELS: tl.constexpr):
    """Sum each of 2**LEVELS tensors of 32 lanes; lane i gets the sum of the i-th, and so do the lanes i + 2**LEVELS.

    Each level adds halves of two tensors into one, so that 32 sums take 31 exchanges between lanes and not 160.
    """
    for level in tl.static_range(LEVELS):
        is_upper = (lanes & (1 << (LEVELS - 1 - level))) != 0
        folded = ()
        for i in tl.static_range(1 << (LEVELS - 1 - level)):
            low, high = values[i], values[i + (1 << (LEVELS - 1 - level))]
            sent = tl.gather(tl.where(is_upper, low, high), lanes ^ (1 << (LEVELS - 1 - level)), 0)
            folded = folded + (tl.where(is_upper, high, low) + sent,)
        values = folded
    total = values[0]
    for level in tl.static_range(LEVELS, 5):
        total += tl.gather(total, lanes ^ (1 << level), 0)
    return total


# Where things are


@triton.jit
def own_channels(dim, groups, BD: tl.constexpr, W: tl.constexpr):
    """The W sets of channels of this program, which ones are, and the first; programs stay inside their group."""
    of_a_group = dim // groups
    blocks = (of_a_group + BD * W - 1) // (BD * W)
    block = tl.program_id(1)
    first, own = block // blocks * of_a_group, block % blocks * (BD * W)
    channels, inside = (), ()
    for w in tl.static_range(W):
        lanes = own + w * BD + tl.arange(0, BD)
        channels, inside = channels + (first + lanes,), inside + (lanes < of_a_group,)
    return channels, inside, first + own


@triton.jit
def bounds(path, route, piece):
    """The first token and the end of a piece."""
    if path.offsets is not None:
        at = path.offsets + tl.cast(field(path, route, OFFSETS_ROW), tl.int64) * path.offsets_row + piece
        return tl.load(at).to(tl.int32), tl.load(at + 1).to(tl.int32)
    else:
        run, window, pieces = field(path, route, RUN), field(path, route, WINDOW), field(path, route, PIECES_OF_A_RUN)
        whole = piece // pieces * run
        first = whole + piece % pieces * window
        return first, tl.minimum(first + window, whole + run)


@triton.jit
def seek(path, route, batch, token):
    """The voxel of a token, -1 for none, and the digits that tell when the loops of the route wrap."""
    if path.table is not None:
        return named_voxel(path, route, batch, token), token, token
    else:
        fast_count, mid_count = field(path, route, FAST_COUNT), field(path, route, MID_COUNT)
        fast, mid, slow = token % fast_count, token // fast_count % mid_count, token // (fast_count * mid_count)
        voxel = field(path, route, START) + slow * field(path, route, SLOW_STRIDE)
        return voxel + mid * field(path, route, MID_STRIDE) + fast * field(path, route, FAST_STRIDE), fast, mid


@triton.jit
def named_voxel(path, route, batch, token):
    """The voxel a table names, -1 for none."""
    row = tl.cast(field(path, route, TABLE_ROW), tl.int64) * path.table_rows
    at = path.table + row + tl.cast(batch, tl.int64) * path.table_items + token
    return tl.load(at, mask=(token >= 0) & (token < field(path, route, RUN)), other=-1).to(tl.int32)


@triton.jit
def pace(path, route):
    """How many steps the fast loop of a route makes, and how far each goes."""
    return field(path, route, FAST_COUNT), field(path, route, FAST_STRIDE)


@triton.jit
def advance(path, route, batch, pace, voxel, fast, mid):
    """The next token. Loops seldom wrap: what is needed there is loaded there, and keeps no registers."""
    fast += 1
    if path.table is not None:
        voxel = named_voxel(path, route, batch, fast)
    else:
        voxel += pace[1]
        if fast == pace[0]:
            voxel += field(path, route, MID_STRIDE) - fast * pace[1]
            fast -= fast
            mid += 1
            if mid == field(path, route, MID_COUNT):
                voxel += field(path, route, SLOW_STRIDE) - mid * field(path, route, MID_STRIDE)
                mid -= mid
    return voxel, fast, mid


@triton.jit
def retreat(path, route, batch, pace, voxel, fast, mid):
    """The token before."""
    fast -= 1
    if path.table is not None:
        voxel = named_voxel(path, route, batch, fast)
    else:
        voxel -= pace[1]
        if fast < 0:
            fast += pace[0]
            voxel += pace[0] * pace[1] - field(path, route, MID_STRIDE)
            mid -= 1
            if mid < 0:
                mid += field(path, route, MID_COUNT)
                voxel += field(path, route, MID_COUNT) * field(path, route, MID_STRIDE)
                voxel -= field(path, route, SLOW_STRIDE)
    return voxel, fast, mid


@triton.jit
def at_voxel(inside, voxel, CAN_MISS: tl.constexpr):
    """Which channels there are at a voxel that may be none."""
    if CAN_MISS:
        return tl.where(inside, voxel, -1) >= 0  # not a scalar & a tensor: triton's interpreter loses their type
    else:
        return inside


@triton.jit
def pointers(array, route, batch, place, channels):
    """Where the channels of one voxel, or piece, lie."""
    at = array.memory + tl.cast(route, tl.int64) * array.route + tl.cast(batch, tl.int64) * array.batch
    return at + tl.cast(place, tl.int64) * array.place + tl.cast(channels, tl.int64) * array.channel


@triton.jit
def of_item(array, route, batch):
    """Where a batch item of a route begins."""
    return array.memory + tl.cast(route, tl.int64) * array.route + tl.cast(batch, tl.int64) * array.batch


@triton.jit
def offset(array, voxel, columns, step, FAR: tl.constexpr):
    """How far some columns of a voxel lie behind the first of voxel 0."""
    if FAR:
        return tl.cast(voxel, tl.int64) * array.place + tl.cast(columns, tl.int64) * step
    else:
        return voxel * array.place + columns * step


@triton.jit
def row(array, route, batch, channels, inside, default, W: tl.constexpr):
    """One number for each channel, like D; the default where there is no array."""
    found = ()
    for w in tl.static_range(W):
        if array is not None:
            at = pointers(array, route, batch, 0, channels[w])
            found = found + (tl.load(at, mask=inside[w], other=0.0).to(tl.float32),)
        else:
            found = found + (default,)
    return found


@triton.jit
def read(at, array, voxel, channels, here, FAR: tl.constexpr):
    """The channels of a voxel as they are stored, 0 where there are none."""
    return tl.load(at + offset(array, voxel, channels, array.channel, FAR), mask=here, other=0.0)


@triton.jit
def put(at, array, voxel, channels, value, here, ADDS: tl.constexpr, FAR: tl.constexpr):
    """Store the channels of a voxel, or add them to what is there."""
    at += offset(array, voxel, channels, array.channel, FAR)
    if ADDS:
        value += tl.load(at, mask=here, other=0.0).to(tl.float32)
    tl.store(at, value, mask=here)


@triton.jit
def rates(A, route, channels, inside, N: tl.constexpr, W: tl.constexpr):
    """A in units that exp2 takes."""
    found = ()
    for n in tl.static_range(N):
        for w in tl.static_range(W):
            at = pointers(A, route, 0, 0, channels[w]) + n * A.state
            found = found + (tl.load(at, mask=inside[w], other=0.0).to(tl.float32) * LOG2E,)
    return found


@triton.jit
def zeros(count: tl.constexpr, BD: tl.constexpr):
    """So many tensors of zeros."""
    found = ()
    for _ in tl.static_range(count):
        found = found + (tl.full([BD], 0.0, tl.float32),)
    return found


@triton.jit
def load_states(at, stride, inside, N: tl.constexpr, W: tl.constexpr):
    """The states of each channel: all sets of the first state, then of the second."""
    found = ()
    for n in tl.static_range(N):  # noqa: B007
        moved = ()
        for w in tl.static_range(W):
            found = found + (tl.load(at[w], mask=inside[w], other=0.0).to(tl.float32),)
            moved = moved + (at[w] + stride,)  # n * stride would be computed ahead of all loops and kept in registers
        at = moved
    return found


@triton.jit
def store_states(at, stride, h, inside, N: tl.constexpr, W: tl.constexpr):
    """Put the states of each channel somewhere."""
    for n in tl.static_range(N):
        moved = ()
        for w in tl.static_range(W):
            tl.store(at[w], h[n * W + w], mask=inside[w])
            moved = moved + (at[w] + stride,)
        at = moved


@triton.jit
def states_at(array, route, batch, place, channels, W: tl.constexpr):
    """Where the states of one piece or chunk lie."""
    found = ()
    for w in tl.static_range(W):
        found = found + (pointers(array, route, batch, place, channels[w]),)
    return found


@triton.jit
def start_states(array, route, batch, place, channels, inside, N: tl.constexpr, BD: tl.constexpr, W: tl.constexpr):
    """The states an array holds, zero where there is none."""
    if array is not None:
        return load_states(states_at(array, route, batch, place, channels, W), array.state, inside, N, W)
    else:
        return zeros(N * W, BD)


@triton.jit
def checkpoint(checkpoints, path, route, batch, token, channels, dim, states, W: tl.constexpr):
    """Where the first state before a token is kept; the next lies dim further."""
    slot = tl.cast(batch, tl.int64) * field(path, route, SLOTS) + token // STEP
    first = tl.load(path.numbers + route * FIELDS + CHECKPOINTS) + slot * states * dim
    found = ()
    for w in tl.static_range(W):
        found = found + (checkpoints + first + channels[w],)
    return found


@triton.jit
def coefficients(array, route, batch, first, dim, groups, CONSTANT: tl.constexpr):
    """Where B or C begins: for all channels where they are constant, else for the group of a program.

    Args:
        first: The first channel of the program.
        groups: How many groups the array has.
    """
    if CONSTANT:
        return of_item(array, route, 0)
    else:
        return of_item(array, route, batch) + first * groups // dim * array.channel


@triton.jit
def spread(at, array, voxel, lanes, CONSTANT: tl.constexpr, N: tl.constexpr, FAR: tl.constexpr):
    """B or C of a voxel, one state in each lane, 0 for a voxel of -1; nothing where they are constant."""
    if CONSTANT:
        return lanes
    else:
        has = tl.where(lanes < N, voxel, -1) >= 0
        return tl.load(at + offset(array, voxel, lanes, array.state, FAR), mask=has, other=0.0)


@triton.jit
def coefficient(at, array, spread, n: tl.constexpr, channels, inside, lanes, dim, groups, CONSTANT: tl.constexpr):
    """One state of B or C for each channel."""
    if CONSTANT:
        at += tl.cast(channels * groups // dim, tl.int64) * array.channel + n * array.state
        return tl.load(at, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.gather(spread, lanes * 0 + n, 0)

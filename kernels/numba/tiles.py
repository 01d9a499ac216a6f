"""Tiles: what the kernels do before and after the recurrence, on TILE tokens and a block of LANES channels at a time.

A tile is [token][lane] in scratch memory that stays in the cache; a place is an address and how many bytes rows are
apart. Loops that compute take WIDE vectors side by side and may run past the last token, into rows that nobody reads.
"""

from typing import Any

from numba import njit, types

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba.emit import LOG2E
from umamba_seg.kernels.numba.frame import BFLOAT16, FLOAT32, LANES, LINE, ROW, TILE
from umamba_seg.kernels.numba.words import (
    add,
    broadcast_tuple,
    exp2_less_one,
    fma,
    least,
    load,
    load_first,
    load_first_bfloat16,
    load_first_float16,
    load_int,
    load_ints,
    load_rows,
    load_tuple,
    mul,
    reader,
    sigmoid,
    silu,
    softplus,
    splat,
    store,
    store_first,
    store_first_bfloat16,
    store_first_float16,
    store_int,
    store_rows,
    store_tuple,
    sum_rows,
    transpose_block,
)

WIDE = 4
LN2 = 1 / LOG2E

inline: Any = njit(inline="always")


sizes_of, options_of, loops_of, cuts_of, walk_of, rows_of, states_of, sums_of = (
    reader(kind, fields.place(kind._fields[0])) for kind in fields.KINDS
)


def called_with(integers: int, result: Any = types.void) -> Any:
    """A function of so many int64 that kernels call, compiled once for all; what stands once is cheaper `inline`.

    Told its types, it is not compiled again for constants.
    """
    signature = result(*[types.int64] * integers)
    return njit([signature], error_model="numpy", no_rewrites=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inline
def piece_bounds(frame, piece):
    """The first token of a piece and the token behind it."""
    cuts = cuts_of(frame)
    if cuts.offsets != 0:
        return load_int(cuts.offsets + 8 * piece), load_int(cuts.offsets + 8 * piece + 8)
    run_begin, place = (piece // cuts.pieces_of_a_run) * cuts.run, piece % cuts.pieces_of_a_run
    return run_begin + place * cuts.window, run_begin + least((place + 1) * cuts.window, cuts.run)


@called_with(5, types.int64)
def number_tokens(tokens, frame, batch, first, steps):
    """The voxel of each token of a tile, -1 where there is none; loop counters that wrap, no division per token.

    Returns how far apart the voxels lie if all of the tile lie as far apart, else 0.
    """
    walk = walk_of(frame)
    if walk.table != 0:
        at = walk.table + batch * walk.table_batch + 8 * first
        for t in range(steps):
            store_int(tokens + 8 * t, load_int(at + 8 * t))
        return 0
    _slow, middle, fast, stride_slow, stride_middle, stride_fast, start = loops_of(frame)
    k, j, i = first % fast, (first // fast) % middle, first // (fast * middle)
    voxel = start + k * stride_fast + j * stride_middle + i * stride_slow
    for t in range(steps):
        store_int(tokens + 8 * t, voxel)
        voxel += stride_fast
        k += 1
        if k == fast:
            k = 0
            voxel += stride_middle - fast * stride_fast
            j += 1
            if j == middle:
                j = 0
                voxel += stride_slow - middle * stride_middle
    return stride_fast if first % fast + steps <= fast else 0


@inline
def find_before(place, frame, batch, begin, first):
    """The voxel of the last token of a piece before `first` that is there, also written to `place`; -1 for none."""
    for back in range(first - begin):
        number_tokens(place, frame, batch, first - 1 - back, 1)
        if load_int(place) >= 0:
            return load_int(place)
    return -1


@inline
def load_row(address, lanes, kind):
    """The first lanes of a row in any of the number formats."""
    if kind == FLOAT32:
        return load_first(address, lanes)
    if kind == BFLOAT16:
        return load_first_bfloat16(address, lanes)
    return load_first_float16(address, lanes)


@inline
def store_row(address, value, lanes, kind):
    """The inverse of `load_row`."""
    if kind == FLOAT32:
        store_first(address, value, lanes)
    elif kind == BFLOAT16:
        store_first_bfloat16(address, value, lanes)
    else:
        store_first_float16(address, value, lanes)


@called_with(10)
def fetch(to, pitch, width, source, batch, group, first, lanes, tokens, steps):
    """Gather a tile of `width` channels from `first` on; what is beyond `lanes` is 0, as is a token that is not there.

    Either the channels of the source lie side by side, and rows are loaded, or its tokens do: blocks are transposed.
    """
    address, by_batch, by_group, by_token, by_channel, kind = load_ints(source, 6)
    base = address + batch * by_batch + group * by_group + first * by_channel
    if by_channel == 4 and lanes == LANES and kind == FLOAT32:  # the same as below, and faster
        for t in range(steps):
            token = load_int(tokens + 8 * t)
            row = splat(0.0)
            if token >= 0:
                row = load(base + token * by_token)
            store(to + t * pitch, row)
    elif by_channel == 4 or kind != FLOAT32:
        for t in range(steps):
            token = load_int(tokens + 8 * t)
            row = splat(0.0)
            if token >= 0:
                row = load_row(base + token * by_token, lanes, kind)
            store_first(to + t * pitch, row, width)
    else:
        for t in range(0, steps, LANES):
            count = least(steps - t, LANES)
            token, last = load_int(tokens + 8 * t), load_int(tokens + 8 * (t + count - 1))
            at, row, by = base + 4 * token, to + t * pitch, pitch
            if last < token:  # against the order of memory: from the last token, rows upwards
                at, row, by = base + 4 * last, to + (t + count - 1) * pitch, -pitch
            transpose_block(row, by, count, width, at, by_channel, lanes, count)


@inline
def is_in_place(lanes, by_channel, kind, spacing, steps):
    """Whether a tile can be used where it is in memory: whole rows, as far apart as each other, and a whole tile."""
    return spacing != 0 and lanes == LANES and by_channel == 4 and kind == FLOAT32 and steps == TILE


@called_with(9, types.UniTuple(types.int64, 2))
def place(to, source, batch, group, first, lanes, tokens, steps, spacing):
    """Where a tile is and how many bytes its rows are apart: in place if it can be, else fetched into `to`."""
    address, by_batch, by_group, by_token, by_channel, kind = load_ints(source, 6)
    if is_in_place(lanes, by_channel, kind, spacing, steps):
        base = address + batch * by_batch + group * by_group + first * by_channel + load_int(tokens) * by_token
        return base, spacing * by_token
    fetch(to, ROW, LANES, source, batch, group, first, lanes, tokens, steps)
    return to, ROW


@called_with(9, types.UniTuple(types.int64, 2))
def place_of_result(tile, target, batch, group, first, lanes, tokens, steps, spacing):
    """Where results can be written at once, or else `tile`, which has to be `put` where they belong."""
    address, by_batch, by_group, by_token, by_channel, kind, adds = load_ints(target, 7)
    if adds == 0 and is_in_place(lanes, by_channel, kind, spacing, steps):
        base = address + batch * by_batch + group * by_group + first * by_channel + load_int(tokens) * by_token
        return base, spacing * by_token
    return tile, ROW


@inline
def next_rows(frame, array, batch, group, first, tokens):
    """`rows_ahead` of the next tile."""
    return rows_ahead(frame, array, batch, group, first, tokens, 1)


@called_with(7, types.UniTuple(types.int64, 4))
def rows_ahead(frame, array, batch, group, first, tokens, tiles):
    """What `prefetch_rows` asks for of a block's tile some tiles ahead: where it is, and the steps by voxel, row, line.

    Rows of channels are a line each, and lie where their voxels do; rows of a channel's tokens are several lines each.
    Where there is no array it is the frame itself.
    """
    address, by_batch, by_group, by_token, by_channel = load_ints(frame + array, 5)
    if address == 0:
        return frame, 0, 0, 0
    base = address + batch * by_batch + group * by_group + first * by_channel + tiles * walk_of(frame).ahead * by_token
    if by_channel <= 4:
        return base, by_token, 0, 0
    return base + load_int(tokens) * by_token, 0, by_channel, LINE


@called_with(10)
def put(target, offset, batch, group, first, lanes, tokens, steps, source, pitch):
    """Scatter a tile: the inverse of `fetch`. A target that is the same for all tokens has their sum added."""
    address, by_batch, by_group, by_token, by_channel, kind, adds = load_ints(target, 7)
    base = address + offset + batch * by_batch + group * by_group + first * by_channel
    if by_token == 0:
        total = splat(0.0)
        for t in range(steps):
            total = add(total, load(source + t * pitch))
        store_first(base, add(load_first(base, lanes), total), lanes)
    elif by_channel == 4 and lanes == LANES and kind == FLOAT32:  # the same as below, and faster
        for t in range(steps):
            token = load_int(tokens + 8 * t)
            if token >= 0:
                at = base + token * by_token
                row = load(source + t * pitch)
                if adds != 0:
                    row = add(row, load(at))
                store(at, row)
    elif by_channel == 4 or kind != FLOAT32:
        for t in range(steps):
            token = load_int(tokens + 8 * t)
            if token >= 0:
                at = base + token * by_token
                row = load(source + t * pitch)
                if adds != 0:
                    row = add(row, load_first(at, lanes))
                store_row(at, row, lanes, kind)
    else:
        for t in range(0, steps, LANES):
            count = least(steps - t, LANES)
            token, last = load_int(tokens + 8 * t), load_int(tokens + 8 * (t + count - 1))
            at, row, by = base + 4 * token, source + t * pitch, pitch
            if last < token:
                at, row, by = base + 4 * last, source + (t + count - 1) * pitch, -pitch
            transpose_block(at, by_channel, lanes, count, row, by, count, lanes)


@inline
def prepare(dt, x, delta, u, bias, uses_softplus, is_scaled, scale, tokens, is_padded, steps):
    """dt = scale * softplus(delta + bias) and x = dt * u; delta and u are places.

    A token that is not there gets dt = 0: a decay of 1, no input.
    """
    for t in range(0, steps, WIDE):
        rows = add(load_rows(delta[0] + t * delta[1], delta[1], WIDE), bias)
        if uses_softplus:
            rows = softplus(rows)
        if is_scaled:
            rows = mul(rows, scale)
        store_tuple(dt + t * ROW, rows)
        store_tuple(x + t * ROW, mul(rows, load_rows(u[0] + t * u[1], u[1], WIDE)))
    if is_padded:
        for t in range(steps):
            if load_int(tokens + 8 * t) < 0:
                store(dt + t * ROW, splat(0.0))
                store(x + t * ROW, splat(0.0))


@inline
def dot_rows(dots, products, packed, pitch, half, chunks, steps):
    """sum C * B of each token, a float each: what it reads of its own input, by unit of x. `products` is scratch."""
    for t in range(steps):
        total = splat(0.0)
        for k in range(chunks):
            at = packed + k * TILE * pitch + t * pitch
            total = fma(load_first(at, half), load_first(at + 4 * half, half), total)
        store(products + t * ROW, total)
    sum_lanes(dots, products, steps)


@inline
def sum_lanes(sums, rows, steps):
    """The sum of each row, a float each."""
    for t in range(0, steps, LANES):
        store(sums + 4 * t, sum_rows(load_tuple(rows + t * ROW, LANES)))


@inline
def zero(rows, count):
    """Fill a number of vectors with zero."""
    for i in range(count):
        store(rows + i * ROW, splat(0.0))


@inline
def copy(to, rows, pitch, steps):
    """The rows of a tile, `pitch` bytes apart, to another one."""
    for t in range(steps):
        store(to + t * ROW, load(rows + t * pitch))


@inline
def add_branches(rows, count, size):
    """Add `count` arrays of `size` bytes, a power of two of them, into the first, two by two as in a tournament."""
    step = 1
    while step < count:
        for i in range(0, count, 2 * step):
            for at in range(0, size, ROW):
                to = rows + i * size + at
                store(to, add(load(to), load(to + step * size)))
        step *= 2


@inline
def add_scaled(to, source, factors, steps):
    """Add to each row the row of source times its factor."""
    for t in range(0, steps, WIDE):
        at = t * ROW
        rows = fma(load_tuple(source + at, WIDE), broadcast_tuple(factors + 4 * t, WIDE), load_tuple(to + at, WIDE))
        store_tuple(to + at, rows)


@inline
def shift(rows, carry, tokens, steps):
    """Give each token the row of the token before it that is there; `carry` goes from tile to tile."""
    before = load(carry)
    for t in range(steps):
        row = load(rows + t * ROW)
        store(rows + t * ROW, before)
        if load_int(tokens + 8 * t) >= 0:
            before = row
    store(carry, before)


@inline
def shift_back(rows, carry, tokens, steps):
    """Give each token the row of the token after it that is there: what `shift` does to gradients."""
    after = load(carry)
    for back in range(steps):
        t = steps - 1 - back
        row = load(rows + t * ROW)
        store(rows + t * ROW, after)
        if load_int(tokens + 8 * t) >= 0:
            after = row
    store(carry, after)


@inline
def finish(to, y, u, z, x, dots, skip, is_weighted, weight, is_gated, steps):
    """(y + dots * x + D * u) * weight * silu(z) into a place; u and z are places too."""
    for t in range(0, steps, WIDE):
        rows = fma(load_tuple(x + t * ROW, WIDE), broadcast_tuple(dots + 4 * t, WIDE), load_tuple(y + t * ROW, WIDE))
        rows = fma(load_rows(u[0] + t * u[1], u[1], WIDE), skip, rows)
        if is_weighted:
            rows = mul(rows, weight)
        if is_gated:
            rows = mul(rows, silu(load_rows(z[0] + t * z[1], z[1], WIDE)))
        store_rows(to[0] + t * to[1], to[1], rows)


@inline
def ungate(inner, g, z, weight, is_gated, steps):
    """From the gradient g of y to that before weight and gate: inner = g * weight * silu(z); g and z are places."""
    for t in range(0, steps, WIDE):
        rows = mul(load_rows(g[0] + t * g[1], g[1], WIDE), weight)
        if is_gated:
            rows = mul(rows, silu(load_rows(z[0] + t * z[1], z[1], WIDE)))
        store_tuple(inner + t * ROW, rows)


@inline
def silu_slope(gate, s):
    """The derivative of gate = silu(z) in z, s + gate * (1 - s), given s = sigmoid(z)."""
    return fma(gate, fma(s, splat(-1.0), splat(1.0)), s)


@inline
def finish_outer(dz, y, g, u, z, skip, weight, is_gated, steps):
    """The gradients of gate and weight, given y before both and without D * u, which is lost. Returns dweight.

    dz, g, u and z are places.
    """
    total = splat(0.0)
    for t in range(0, steps, WIDE):
        value = fma(load_rows(u[0] + t * u[1], u[1], WIDE), skip, load_tuple(y + t * ROW, WIDE))
        value = mul(value, load_rows(g[0] + t * g[1], g[1], WIDE))
        if is_gated:
            z_rows = load_rows(z[0] + t * z[1], z[1], WIDE)
            s = sigmoid(z_rows)
            gate = mul(z_rows, s)
            slope = silu_slope(gate, s)
            store_rows(dz[0] + t * dz[1], dz[1], mul(mul(value, weight), slope))
            value = mul(value, gate)
        store_tuple(y + t * ROW, value)
    for t in range(steps):
        total = add(total, load(y + t * ROW))
    return total


@inline
def finish_inner(du, ddelta, gx, gdt, g, u, dt, skip, uses_softplus, scale, unscale, is_exact, steps):
    """From gx, the gradient of x, and gdt, that of dt / log(2) through the decays, to those of u and delta.

    du, ddelta and u are places; that of delta is left in gdt too. `unscale` is -log2(e) / scale. Where the input enters
    exactly, gx is the gradient of u already.
    """
    ln2, minus = splat(LN2), splat(-1.0)
    for t in range(0, steps, WIDE):
        at = t * ROW
        dt_rows, gx_rows = load_tuple(dt + at, WIDE), load_tuple(gx + at, WIDE)
        grad_dt = mul(load_tuple(gdt + at, WIDE), ln2)
        if is_exact:
            grad_u = gx_rows
        else:
            grad_dt = fma(gx_rows, load_rows(u[0] + t * u[1], u[1], WIDE), grad_dt)
            grad_u = mul(dt_rows, gx_rows)
        store_rows(du[0] + t * du[1], du[1], fma(load_tuple(g + at, WIDE), skip, grad_u))
        grad_dt = mul(grad_dt, scale)
        if uses_softplus:  # its slope is 1 - exp(-dt)
            grad_dt = mul(exp2_less_one(mul(dt_rows, unscale)), mul(grad_dt, minus))
        store_tuple(gdt + at, grad_dt)
        store_rows(ddelta[0] + t * ddelta[1], ddelta[1], grad_dt)


@inline
def sum_present(rows, tokens, is_padded, steps):
    """The sum over the tokens that are there."""
    total = splat(0.0)
    for t in range(steps):
        if not is_padded or load_int(tokens + 8 * t) >= 0:
            total = add(total, load(rows + t * ROW))
    return total


@inline
def sum_products(x, y, steps):
    """The sum of x * y over the tokens; y is a place."""
    total = splat(0.0)
    for t in range(steps):
        total = fma(load(x + t * ROW), load(y[0] + t * y[1]), total)
    return total

# mypy: ignore-errors
# What triton compiles is Python in form only: it has no annotations, and tuples that grow.
# ruff: noqa: RUF005, SIM102 - triton compiles no (*tuple, x), and no `and` of what it knows with what it does not
"""The forward pass: a scan of whole pieces in one go; or chunk by chunk, all at once, in three launches.

    1. `chunk_ends`: from a state of zero, every chunk finds the state it would end in, and its sum of dt;
    2. `carry`: chunk by chunk, start = end of the one before + exp(A * sum dt) * its start;
    3. `scan_forward`: from its start, every chunk gives its output.

A launch has a program for each route, block of channels and worker; the workers of a batch item share its chunks, which
are whole pieces in the first case.
"""

import triton
import triton.language as tl

from umamba_seg.kernels.triton.device import (
    PIECES,
    STEP,
    advance,
    at_voxel,
    bounds,
    checkpoint,
    coefficient,
    coefficients,
    field,
    gained,
    load_states,
    of_item,
    own_channels,
    pace,
    pointers,
    put,
    rates,
    read,
    row,
    seek,
    sigmoid,
    spread,
    start_states,
    states_at,
    step_size,
    store_states,
    zeros,
)

SIZES = ["dim", "groups", "B_groups", "C_groups", "states", "workers", "chunks", "chunk_tokens"]


@triton.jit
def fetch(
    u, delta, z, u_at, delta_at, z_at, voxel, channels, inside, CAN_MISS: tl.constexpr, W: tl.constexpr,
    FAR: tl.constexpr,
):  # fmt: skip
    """delta, u and z of a token as they are stored, set by set."""
    found = ()
    for w in tl.static_range(W):
        here = at_voxel(inside[w], voxel, CAN_MISS)
        found = found + (read(delta_at, delta, voxel, channels[w], here, FAR),)
        found = found + (read(u_at, u, voxel, channels[w], here, FAR),)
        if z is not None:
            found = found + (read(z_at, z, voxel, channels[w], here, FAR),)
    return found


@triton.jit(do_not_specialize=SIZES)
def scan_forward(
    u, delta, A, B, C, D, z, bias, weights, initial, starts, y, last, checkpoints, path,
    dim, groups, B_groups, C_groups, states, workers, chunks, chunk_tokens, y_scale,
    N: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, SOFTPLUS: tl.constexpr, EXACT: tl.constexpr,
    EXCLUSIVE: tl.constexpr, B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, ADDS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """y, the last states and the checkpoints. What a token needs is loaded while the one before it is computed.

    Args:
        starts: The states before the chunks; None where a piece is one chunk.
        checkpoints: What of them belongs to the N states of this launch; None where there are none.
        states: How many states there are in all.
        W: How many sets of BD channels a program has; they share what is read of B and C.
        ADDS: Whether y is added to.
    """
    CAN_MISS: tl.constexpr = path.table is not None
    LOADS: tl.constexpr = 2 if z is None else 3
    route, share = tl.program_id(2), tl.program_id(0)
    worker, batch = share % workers, share // workers
    lanes = tl.arange(0, BD)
    channels, inside, first_channel = own_channels(dim, groups, BD, W)
    rate = rates(A, route, channels, inside, N, W)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    u_at, delta_at, y_at = of_item(u, route, batch), of_item(delta, route, batch), of_item(y, route, batch)
    z_at = of_item(z, route, batch) if z is not None else u_at
    B_at = coefficients(B, route, batch, first_channel, dim, B_groups, B_CONSTANT)
    C_at = coefficients(C, route, batch, first_channel, dim, C_groups, C_CONSTANT)
    nothing = tl.full([BD], 0.0, tl.float32)
    shift = row(bias, route, batch, channels, inside, nothing, W)
    skip = row(D, route, batch, channels, inside, nothing, W)
    weight = row(weights, route, batch, channels, inside, nothing + 1.0, W)
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = first + chunk * chunk_tokens
        stop = tl.minimum(begin + chunk_tokens, end)
        if starts is not None:
            h = start_states(starts, route, batch, place, channels, inside, N, BD, W)
        else:
            h = start_states(initial, route, batch, piece, channels, inside, N, BD, W)
        before = zeros(W, BD)  # what the token before would have got
        for stretch in range(begin, stop, STEP):
            if checkpoints is not None:
                if stretch > first:
                    at = checkpoint(checkpoints, path, route, batch, stretch, channels, dim, states, W)
                    store_states(at, dim, h, inside, N, W)
            stretch_end = tl.minimum(stretch + STEP, stop)
            voxel, fast, mid = seek(path, route, batch, stretch)
            ahead = fetch(u, delta, z, u_at, delta_at, z_at, voxel, channels, inside, CAN_MISS, W, FAR)
            b_ahead = spread(B_at, B, voxel, lanes, B_CONSTANT, N, FAR)
            c_ahead = spread(C_at, C, voxel, lanes, C_CONSTANT, N, FAR)
            for token in range(stretch, stretch_end):
                now, b_now, c_now, own_voxel = ahead, b_ahead.to(tl.float32), c_ahead.to(tl.float32), voxel
                voxel, fast, mid = advance(path, route, batch, tempo, voxel, fast, mid)
                behind = tl.where(token + 1 < stretch_end, voxel, -1)
                ahead = fetch(u, delta, z, u_at, delta_at, z_at, behind, channels, inside, True, W, FAR)
                b_ahead = spread(B_at, B, behind, lanes, B_CONSTANT, N, FAR)
                c_ahead = spread(C_at, C, behind, lanes, C_CONSTANT, N, FAR)
                dts, values = (), ()
                for w in tl.static_range(W):
                    here = at_voxel(inside[w], own_voxel, CAN_MISS)
                    dt, _slope = step_size(now[w * LOADS].to(tl.float32) + shift[w], scale, here, SOFTPLUS)
                    dts, values = dts + (dt,), values + (now[w * LOADS + 1].to(tl.float32),)
                out, after = zeros(W, BD), ()
                for n in tl.static_range(N):
                    sums = ()
                    for w in tl.static_range(W):
                        here = at_voxel(inside[w], own_voxel, CAN_MISS)
                        b = coefficient(B_at, B, b_now, n, channels[w], here, lanes, dim, B_groups, B_CONSTANT)
                        c = coefficient(C_at, C, c_now, n, channels[w], here, lanes, dim, C_groups, C_CONSTANT)
                        exponent = dts[w] * rate[n * W + w]
                        decay = tl.exp2(exponent)
                        kept = decay * h[n * W + w]
                        h_n = kept + gained(dts[w] * values[w], exponent, decay, EXACT) * b
                        sums = sums + (out[w] + c * (kept if EXCLUSIVE == "own" else h_n),)
                        after = after + (h_n,)
                    out = sums
                h = after
                if EXCLUSIVE == "shift":
                    out, before = before, chosen(inside, own_voxel, out, before, CAN_MISS, W)
                for w in tl.static_range(W):
                    here = at_voxel(inside[w], own_voxel, CAN_MISS)
                    result = (out[w] + skip[w] * values[w]) * (weight[w] * y_scale)
                    if z is not None:
                        gate = now[w * LOADS + 2].to(tl.float32)
                        result *= gate * sigmoid(gate)
                    put(y_at, y, own_voxel, channels[w], result, here, ADDS, FAR)
        if last is not None:
            if (begin + chunk_tokens >= end) & ((begin < end) | (begin == first)):
                at = states_at(last, route, batch, piece, channels, W)
                store_states(at, last.state, h, inside, N, W)


@triton.jit
def chosen(inside, voxel, new, old, CAN_MISS: tl.constexpr, W: tl.constexpr):
    """New numbers where there is a voxel, else the old ones."""
    found = ()
    for w in tl.static_range(W):
        found = found + (tl.where(at_voxel(inside[w], voxel, CAN_MISS), new[w], old[w]),)
    return found


@triton.jit(do_not_specialize=SIZES)
def chunk_ends(
    u, delta, A, B, bias, ends, totals, path,
    dim, groups, B_groups, workers, chunks, chunk_tokens,
    N: tl.constexpr, BD: tl.constexpr, W: tl.constexpr, SOFTPLUS: tl.constexpr, EXACT: tl.constexpr,
    B_CONSTANT: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """The state every chunk ends in from a state of zero, and its sum of dt."""
    CAN_MISS: tl.constexpr = path.table is not None
    route, share = tl.program_id(2), tl.program_id(0)
    worker, batch = share % workers, share // workers
    lanes = tl.arange(0, BD)
    channels, inside, first_channel = own_channels(dim, groups, BD, W)
    rate = rates(A, route, channels, inside, N, W)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    u_at, delta_at = of_item(u, route, batch), of_item(delta, route, batch)
    B_at = coefficients(B, route, batch, first_channel, dim, B_groups, B_CONSTANT)
    shift = row(bias, route, batch, channels, inside, tl.full([BD], 0.0, tl.float32), W)
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = tl.minimum(first + chunk * chunk_tokens, end)
        stop = tl.minimum(begin + chunk_tokens, end)
        h, total = zeros(N * W, BD), zeros(W, BD)
        voxel, fast, mid = seek(path, route, batch, begin)
        start = tl.where(begin < stop, voxel, -1)
        ahead = fetch(u, delta, None, u_at, delta_at, u_at, start, channels, inside, True, W, FAR)
        b_ahead = spread(B_at, B, start, lanes, B_CONSTANT, N, FAR)
        for token in range(begin, stop):
            now, b_now, own_voxel = ahead, b_ahead.to(tl.float32), voxel
            voxel, fast, mid = advance(path, route, batch, tempo, voxel, fast, mid)
            behind = tl.where(token + 1 < stop, voxel, -1)
            ahead = fetch(u, delta, None, u_at, delta_at, u_at, behind, channels, inside, True, W, FAR)
            b_ahead = spread(B_at, B, behind, lanes, B_CONSTANT, N, FAR)
            dts, sums = (), ()
            for w in tl.static_range(W):
                here = at_voxel(inside[w], own_voxel, CAN_MISS)
                dt, _slope = step_size(now[w * 2].to(tl.float32) + shift[w], scale, here, SOFTPLUS)
                dts, sums = dts + (dt,), sums + (total[w] + dt,)
            after = ()
            for n in tl.static_range(N):
                for w in tl.static_range(W):
                    here = at_voxel(inside[w], own_voxel, CAN_MISS)
                    b = coefficient(B_at, B, b_now, n, channels[w], here, lanes, dim, B_groups, B_CONSTANT)
                    exponent = dts[w] * rate[n * W + w]
                    decay = tl.exp2(exponent)
                    x = gained(dts[w] * now[w * 2 + 1].to(tl.float32), exponent, decay, EXACT)
                    after = after + (decay * h[n * W + w] + x * b,)
            h, total = after, sums
        store_states(states_at(ends, route, batch, place, channels, W), ends.state, h, inside, N, W)
        store_states(states_at(totals, route, batch, place, channels, W), 0, total, inside, 1, W)


@triton.jit(do_not_specialize=["dim", "pieces", "chunks", "first", "step"])
def carry(A, boundary, ends, totals, path, dim, pieces, chunks, first, step, N: tl.constexpr, BD: tl.constexpr):
    """Turn the states that chunks would end in into those that they start from; backward, adjoints alike.

    Args:
        boundary: What enters the first chunk of a piece; zero where None.
        first: The chunk that comes first.
        step: 1, or -1 from the last chunk to the first.
    """
    route, share = tl.program_id(2), tl.program_id(0)
    piece, batch = share % pieces, share // pieces
    channels, inside, _ = own_channels(dim, 1, BD, 1)
    rate = rates(A, route, channels, inside, N, 1)
    if piece < field(path, route, PIECES):
        h = start_states(boundary, route, batch, piece, channels, inside, N, BD, 1)
        for i in range(chunks):
            place = piece * chunks + first + i * step
            at = states_at(ends, route, batch, place, channels, 1)
            total = tl.load(pointers(totals, route, batch, place, channels[0]), mask=inside[0], other=0.0)
            end = load_states(at, ends.state, inside, N, 1)
            store_states(at, ends.state, h, inside, N, 1)
            after = ()
            for n in tl.static_range(N):
                kept = tl.where(h[n] == 0.0, 0.0, tl.exp2(total * rate[n]) * h[n])  # exp may overflow: no inf * 0
                after = after + (end[n] + kept,)
            h = after

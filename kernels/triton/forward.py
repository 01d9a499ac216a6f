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
    coefficients,
    coefficients_mask,
    field,
    further,
    gained,
    load_states,
    own_channels,
    pace,
    pointers,
    put,
    rates,
    read,
    row,
    seek,
    sigmoid,
    start_states,
    step_size,
    store_states,
    zeros,
)

SIZES = ["dim", "groups", "B_groups", "C_groups", "states", "workers", "chunks", "chunk_tokens", "adds"]


@triton.jit(do_not_specialize=SIZES)
def scan_forward(
    u, delta, A, B, C, D, z, bias, weights, initial, starts, y, last, checkpoints, path,
    dim, groups, B_groups, C_groups, states, workers, chunks, chunk_tokens, y_scale, adds,
    N: tl.constexpr, BD: tl.constexpr, SOFTPLUS: tl.constexpr, EXACT: tl.constexpr, EXCLUSIVE: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr,
):  # fmt: skip
    """y, the last states and the checkpoints.

    Args:
        starts: The states before the chunks; None where a piece is one chunk.
        checkpoints: What of them belongs to the N states of this launch; None where there are none.
        states: How many states there are in all.
        adds: Whether y is added to.
    """
    CAN_MISS: tl.constexpr = path.table is not None
    route, item = tl.program_id(2), tl.program_id(0)
    worker, batch = item % workers, item // workers
    channels, inside, first_channel = own_channels(dim, groups, BD)
    rate = rates(A, route, channels, inside, N)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    u_at, delta_at = pointers(u, route, batch, 0, channels), pointers(delta, route, batch, 0, channels)
    B_at = coefficients(B, route, batch, channels, first_channel, dim, B_groups, B_CONSTANT)
    C_at = coefficients(C, route, batch, channels, first_channel, dim, C_groups, C_CONSTANT)
    y_at = pointers(y, route, batch, 0, channels)
    if z is not None:
        z_at = pointers(z, route, batch, 0, channels)
    nothing = tl.full([BD], 0.0, tl.float32)
    shift = row(bias, route, batch, channels, inside, nothing)
    skip = row(D, route, batch, channels, inside, nothing)
    weight = row(weights, route, batch, channels, inside, nothing + 1.0) * y_scale
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = first + chunk * chunk_tokens
        stop = tl.minimum(begin + chunk_tokens, end)
        if starts is not None:
            h = start_states(starts, route, batch, place, channels, inside, N, BD)
        else:
            h = start_states(initial, route, batch, piece, channels, inside, N, BD)
        before = nothing  # what the token before would have got
        for stretch in range(begin, stop, STEP):
            if checkpoints is not None:
                if stretch > first:
                    at = checkpoints + checkpoint(path, route, batch, stretch, channels, dim, states)
                    store_states(at, dim, h, inside, N)
            voxel, fast, mid = seek(path, route, batch, stretch)
            for _ in range(stretch, tl.minimum(stretch + STEP, stop)):
                here = at_voxel(inside, voxel, CAN_MISS)
                dt, _slope = step_size(read(delta_at, delta, voxel, here) + shift, scale, here, SOFTPLUS)
                value = read(u_at, u, voxel, here)
                b_at, c_at = further(B_at, B, voxel), further(C_at, C, voxel)
                has_b = coefficients_mask(voxel, inside, B_CONSTANT, CAN_MISS)
                has_c = coefficients_mask(voxel, inside, C_CONSTANT, CAN_MISS)
                out = nothing
                after = ()
                for n in tl.static_range(N):
                    b = tl.load(b_at, mask=has_b, other=0.0).to(tl.float32)
                    c = tl.load(c_at, mask=has_c, other=0.0).to(tl.float32)
                    b_at, c_at = b_at + B.state, c_at + C.state
                    decay = tl.exp2(dt * rate[n])
                    kept = decay * h[n]
                    h_n = kept + gained(dt * value, dt * rate[n], decay, EXACT) * b
                    out += c * (kept if EXCLUSIVE == "own" else h_n)
                    after = after + (h_n,)
                h = after
                if EXCLUSIVE == "shift":
                    out, before = before, tl.where(here, out, before)
                out = (out + skip * value) * weight
                if z is not None:
                    gate = read(z_at, z, voxel, here)
                    out *= gate * sigmoid(gate)
                put(further(y_at, y, voxel), out, here, adds)
                voxel, fast, mid = advance(path, route, batch, tempo, voxel, fast, mid)
        if last is not None:
            if (begin + chunk_tokens >= end) & ((begin < end) | (begin == first)):
                store_states(pointers(last, route, batch, piece, channels), last.state, h, inside, N)


@triton.jit(do_not_specialize=SIZES)
def chunk_ends(
    u, delta, A, B, bias, ends, totals, path,
    dim, groups, B_groups, workers, chunks, chunk_tokens,
    N: tl.constexpr, BD: tl.constexpr, SOFTPLUS: tl.constexpr, EXACT: tl.constexpr, B_CONSTANT: tl.constexpr,
):  # fmt: skip
    """The state every chunk ends in from a state of zero, and its sum of dt."""
    CAN_MISS: tl.constexpr = path.table is not None
    route, item = tl.program_id(2), tl.program_id(0)
    worker, batch = item % workers, item // workers
    channels, inside, first_channel = own_channels(dim, groups, BD)
    rate = rates(A, route, channels, inside, N)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    u_at, delta_at = pointers(u, route, batch, 0, channels), pointers(delta, route, batch, 0, channels)
    B_at = coefficients(B, route, batch, channels, first_channel, dim, B_groups, B_CONSTANT)
    nothing = tl.full([BD], 0.0, tl.float32)
    shift = row(bias, route, batch, channels, inside, nothing)
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = tl.minimum(first + chunk * chunk_tokens, end)
        h = zeros(N, BD)
        total = nothing
        voxel, fast, mid = seek(path, route, batch, begin)
        for _ in range(begin, tl.minimum(begin + chunk_tokens, end)):
            here = at_voxel(inside, voxel, CAN_MISS)
            dt, _slope = step_size(read(delta_at, delta, voxel, here) + shift, scale, here, SOFTPLUS)
            x = dt * read(u_at, u, voxel, here)
            b_at, has_b = further(B_at, B, voxel), coefficients_mask(voxel, inside, B_CONSTANT, CAN_MISS)
            after = ()
            for n in tl.static_range(N):
                b = tl.load(b_at, mask=has_b, other=0.0).to(tl.float32)
                b_at += B.state
                decay = tl.exp2(dt * rate[n])
                after = after + (decay * h[n] + gained(x, dt * rate[n], decay, EXACT) * b,)
            h = after
            total += dt
            voxel, fast, mid = advance(path, route, batch, tempo, voxel, fast, mid)
        store_states(pointers(ends, route, batch, place, channels), ends.state, h, inside, N)
        tl.store(pointers(totals, route, batch, place, channels), total, mask=inside)


@triton.jit(do_not_specialize=["dim", "pieces", "chunks", "first", "step"])
def carry(A, boundary, ends, totals, path, dim, pieces, chunks, first, step, N: tl.constexpr, BD: tl.constexpr):
    """Turn the states that chunks would end in into those that they start from; backward, adjoints alike.

    Args:
        boundary: What enters the first chunk of a piece; zero where None.
        first: The chunk that comes first.
        step: 1, or -1 from the last chunk to the first.
    """
    route, item = tl.program_id(2), tl.program_id(0)
    piece, batch = item % pieces, item // pieces
    channels, inside, _ = own_channels(dim, 1, BD)
    rate = rates(A, route, channels, inside, N)
    if piece < field(path, route, PIECES):
        h = start_states(boundary, route, batch, piece, channels, inside, N, BD)
        for i in range(chunks):
            place = piece * chunks + first + i * step
            at = pointers(ends, route, batch, place, channels)
            total = tl.load(pointers(totals, route, batch, place, channels), mask=inside, other=0.0)
            end = load_states(at, ends.state, inside, N)
            store_states(at, ends.state, h, inside, N)
            after = ()
            for n in tl.static_range(N):
                kept = tl.where(h[n] == 0.0, 0.0, tl.exp2(total * rate[n]) * h[n])  # exp may overflow: no inf * 0
                after = after + (end[n] + kept,)
            h = after

# mypy: ignore-errors
# What triton compiles is Python in form only: it has no annotations, and tuples that grow.
# ruff: noqa: RUF005, SIM102 - triton compiles no (*tuple, x), and no `and` of what it knows with what it does not
"""The backward pass: pieces whole, or chunk by chunk, all at once; the adjoints of chunks as the states of the forward.

Let g be the adjoint of h behind a token. What the token hands to the state before it is e = exp(dt * A) * g, and
e + C * grad of the token before makes up the next g. So `chunk_adjoints` finds what every chunk would hand on from an
adjoint of zero, `forward.carry` what enters each, and `scan_backward` walks back through it from there.

Stretches of 64 tokens begin at the checkpoints of the forward pass. A stretch is walked once ahead, and the state
before every span of T tokens is put aside; then span by span from the last, T tokens ahead and T back. The decays and
states inside a span stay in registers: two exponentials for each update of a state.
"""

import triton
import triton.language as tl

from umamba_seg.kernels.triton.device import (
    LN2,
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
    put,
    rates,
    read,
    relative_gain_slope,
    retreat,
    row,
    seek,
    sigmoid,
    spread,
    start_states,
    states_at,
    step_size,
    store_states,
    sum_over_lanes,
    zeros,
)

SIZES = [
    "dim", "groups", "B_groups", "C_groups", "states", "batches", "voxels", "workers", "chunks", "chunk_tokens",
]  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def scan_backward(
    u, delta, A, B, C, D, z, bias, weights, initial, adjoints, grad_y, checkpoints,
    grad_u, grad_delta, grad_z, grad_initial,
    share_A, share_B, share_C, share_D, share_bias, share_weights, shares_of_voxels, aside, path,
    dim, groups, B_groups, C_groups, states, batches, voxels, workers, chunks, chunk_tokens, y_scale,
    N: tl.constexpr, BD: tl.constexpr, T: tl.constexpr, SLOTS: tl.constexpr, LEVELS: tl.constexpr,
    SOFTPLUS: tl.constexpr, EXACT: tl.constexpr, EXCLUSIVE: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr, U_ADDS: tl.constexpr, DELTA_ADDS: tl.constexpr,
    Z_ADDS: tl.constexpr, SHARES_ADD: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """All gradients; of what tokens or channels share, the share of each program.

    Args:
        adjoints: What enters each chunk from behind; the gradient of the last state where a piece is one chunk.
        share_A: (k, 1, programs, d, n). So are those of B and C where they are constant, and None where not.
        share_D: (k, 1, programs, d, 1). So are those of the bias and the weights.
        shares_of_voxels: (k, blocks, b, voxels, 2**LEVELS) for B and C that vary: SLOTS for B, then SLOTS for C.
        aside: Memory for the states before the spans of a stretch, private to each program.
        U_ADDS: Whether the gradient of u is added to what is there. So are the others.
    """
    CAN_MISS: tl.constexpr = path.table is not None
    HAS_OUT: tl.constexpr = z is not None or weights is not None  # y before weights and gate is needed
    route, share = tl.program_id(2), tl.program_id(0)
    worker, batch = share % workers, share // workers
    all_channels, all_inside, first_channel = own_channels(dim, groups, BD, 1)
    channels, inside = all_channels[0], all_inside[0]
    lanes = tl.arange(0, BD)
    rate = rates(A, route, all_channels, all_inside, N, 1)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    u_at, delta_at, grad_y_at = of_item(u, route, batch), of_item(delta, route, batch), of_item(grad_y, route, batch)
    grad_u_at, grad_delta_at = of_item(grad_u, route, batch), of_item(grad_delta, route, batch)
    B_at = coefficients(B, route, batch, first_channel, dim, B_groups, B_CONSTANT)
    C_at = coefficients(C, route, batch, first_channel, dim, C_groups, C_CONSTANT)
    if z is not None:
        z_at, grad_z_at = of_item(z, route, batch), of_item(grad_z, route, batch)
    block = tl.cast(route, tl.int64) * tl.num_programs(1) + tl.program_id(1)
    aside += (block * tl.num_programs(0) + share) * ((STEP // T) * (N + 1) * BD) + lanes
    if LEVELS >= 0:
        shares_of_voxels += (block * batches + batch) * voxels * (1 << LEVELS) + lanes
    nothing = tl.full([BD], 0.0, tl.float32)
    shift = row(bias, route, batch, all_channels, all_inside, nothing, 1)[0]
    skip = row(D, route, batch, all_channels, all_inside, nothing, 1)[0]
    weight = row(weights, route, batch, all_channels, all_inside, nothing + 1.0, 1)[0]
    sum_A, sum_B, sum_C = zeros(N, BD), zeros(N, BD), zeros(N, BD)
    sum_D, sum_bias, sum_weights = nothing, nothing, nothing
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = tl.minimum(first + chunk * chunk_tokens, end)
        stop = tl.minimum(begin + chunk_tokens, end)
        e = start_states(adjoints, route, batch, place, all_channels, all_inside, N, BD, 1)
        grad_after = nothing  # of the token behind
        stretches = (stop - begin + STEP - 1) // STEP
        for from_end in range(stretches):
            stretch = begin + (stretches - 1 - from_end) * STEP
            tokens = tl.minimum(stretch + STEP, stop) - stretch
            last_span = (tokens - 1) // T

            h = start_states(initial, route, batch, piece, all_channels, all_inside, N, BD, 1)
            before = nothing  # what the token before would have got
            if checkpoints is not None:
                if stretch > first:
                    at = checkpoint(checkpoints, path, route, batch, stretch, all_channels, dim, states, 1)
                    h = load_states(at, dim, all_inside, N, 1)
                    if EXCLUSIVE == "shift":
                        before = read_before(
                            C, C_at, path, route, batch, first, stretch, h, channels, inside, lanes, dim, C_groups,
                            C_CONSTANT, N, BD, FAR,
                        )  # fmt: skip
            voxel, fast, mid = seek(path, route, batch, stretch)
            start = tl.where(last_span > 0, voxel, -1)
            delta_ahead = read(delta_at, delta, start, channels, at_voxel(inside, start, True), FAR)
            u_ahead = read(u_at, u, start, channels, at_voxel(inside, start, True), FAR)
            b_ahead = spread(B_at, B, start, lanes, B_CONSTANT, N, FAR)
            for token in range(last_span * T):
                delta_now, u_now, b_now, own_voxel = delta_ahead, u_ahead, b_ahead.to(tl.float32), voxel
                voxel, fast, mid = advance(path, route, batch, tempo, voxel, fast, mid)
                behind = tl.where(token + 1 < last_span * T, voxel, -1)
                delta_ahead = read(delta_at, delta, behind, channels, at_voxel(inside, behind, True), FAR)
                u_ahead = read(u_at, u, behind, channels, at_voxel(inside, behind, True), FAR)
                b_ahead = spread(B_at, B, behind, lanes, B_CONSTANT, N, FAR)
                if token % T == 0:
                    put_aside(aside, token // T, h, before, all_inside, EXCLUSIVE, N, BD)
                here = at_voxel(inside, own_voxel, CAN_MISS)
                dt, _slope = step_size(delta_now.to(tl.float32) + shift, scale, here, SOFTPLUS)
                x = dt * u_now.to(tl.float32)
                after = ()
                for n in tl.static_range(N):
                    b = coefficient(B_at, B, b_now, n, channels, here, lanes, dim, B_groups, B_CONSTANT)
                    decay = tl.exp2(dt * rate[n])
                    after = after + (decay * h[n] + gained(x, dt * rate[n], decay, EXACT) * b,)
                h = after
                if EXCLUSIVE == "shift":
                    c_now = spread(C_at, C, own_voxel, lanes, C_CONSTANT, N, FAR).to(tl.float32)
                    out = nothing
                    for n in tl.static_range(N):
                        c = coefficient(C_at, C, c_now, n, channels, here, lanes, dim, C_groups, C_CONSTANT)
                        out += c * h[n]
                    before = tl.where(here, out, before)
            put_aside(aside, last_span, h, before, all_inside, EXCLUSIVE, N, BD)

            voxel, fast, mid = seek(path, route, batch, stretch + last_span * T + T - 1)
            for spans_done in range(last_span + 1):
                span = last_span - spans_done
                found = ()  # voxels, the last first
                for i in tl.static_range(T):
                    found = found + (tl.where(span * T + (T - 1 - i) < tokens, voxel, -1),)
                    voxel, fast, mid = retreat(path, route, batch, tempo, voxel, fast, mid)

                # all that a span reads, at once, so that it waits for memory once
                h = load_states((aside + span * ((N + 1) * BD),), BD, all_inside, N, 1)
                if EXCLUSIVE == "shift":
                    before = tl.load(aside + span * ((N + 1) * BD) + N * BD, mask=inside, other=0.0)
                deltas, us, zs, grad_ys, bs, cs = (), (), (), (), (), ()
                for i in tl.static_range(T):
                    voxel_i = found[T - 1 - i]
                    here = at_voxel(inside, voxel_i, True)
                    deltas = deltas + (read(delta_at, delta, voxel_i, channels, here, FAR),)
                    us = us + (read(u_at, u, voxel_i, channels, here, FAR),)
                    grad_ys = grad_ys + (read(grad_y_at, grad_y, voxel_i, channels, here, FAR),)
                    if z is not None:
                        zs = zs + (read(z_at, z, voxel_i, channels, here, FAR),)
                    bs = bs + (spread(B_at, B, voxel_i, lanes, B_CONSTANT, N, FAR),)
                    cs = cs + (spread(C_at, C, voxel_i, lanes, C_CONSTANT, N, FAR),)

                # T tokens ahead: the gradients of z and the weights, and all that the way back needs
                dts, slopes, values, grads, decays, kepts = (), (), (), (), (), ()
                for i in tl.static_range(T):
                    voxel_i = found[T - 1 - i]
                    here = at_voxel(inside, voxel_i, True)
                    dt, slope = step_size(deltas[i].to(tl.float32) + shift, scale, here, SOFTPLUS)
                    value = us[i].to(tl.float32)
                    b_now, c_now = bs[i].to(tl.float32), cs[i].to(tl.float32)
                    out = nothing
                    after = ()
                    for n in tl.static_range(N):
                        b = coefficient(B_at, B, b_now, n, channels, here, lanes, dim, B_groups, B_CONSTANT)
                        decay = tl.exp2(dt * rate[n])
                        kept = decay * h[n]
                        h_n = kept + gained(dt * value, dt * rate[n], decay, EXACT) * b
                        if HAS_OUT:
                            c = coefficient(C_at, C, c_now, n, channels, here, lanes, dim, C_groups, C_CONSTANT)
                            out += c * (kept if EXCLUSIVE == "own" else h_n)
                        after, decays, kepts = after + (h_n,), decays + (decay,), kepts + (kept,)
                    h = after
                    if EXCLUSIVE == "shift":
                        out, before = before, tl.where(here, out, before)
                    out += skip * value
                    grad = grad_ys[i].to(tl.float32) * y_scale
                    if z is not None:
                        gate = zs[i].to(tl.float32)
                        s = sigmoid(gate)
                        grad_gate = grad * weight * out * s * (1.0 + gate * (1.0 - s))
                        put(grad_z_at, grad_z, voxel_i, channels, grad_gate, here, Z_ADDS, FAR)
                        grad *= gate * s
                    sum_weights += grad * out
                    dts, slopes = dts + (dt,), slopes + (slope,)
                    values, grads = values + (value,), grads + (grad * weight,)

                # and back
                for i in tl.static_range(T):
                    voxel_i, dt, value, grad = found[i], dts[T - 1 - i], values[T - 1 - i], grads[T - 1 - i]
                    here = at_voxel(inside, voxel_i, True)
                    b_now, c_now = bs[T - 1 - i].to(tl.float32), cs[T - 1 - i].to(tl.float32)
                    sum_D += grad * value
                    grad_value = grad * skip
                    if EXCLUSIVE == "shift":
                        grad, grad_after = grad_after, tl.where(here, grad, grad_after)
                    grad_x, grad_dt, grad_exponent = nothing, nothing, nothing  # of dt * u, dt, dt * A for exp2
                    e_before, grad_A, grad_B, grad_C = (), (), (), ()
                    for n in tl.static_range(N):
                        b = coefficient(B_at, B, b_now, n, channels, here, lanes, dim, B_groups, B_CONSTANT)
                        c = coefficient(C_at, C, c_now, n, channels, here, lanes, dim, C_groups, C_CONSTANT)
                        decay, kept = decays[(T - 1 - i) * N + n], kepts[(T - 1 - i) * N + n]
                        x = gained(dt * value, dt * rate[n], decay, EXACT)
                        g_kept = e[n] + c * grad
                        g = e[n] if EXCLUSIVE == "own" else g_kept
                        q = g_kept * kept
                        grad_exponent += q * rate[n]
                        grad_A_n = q * dt
                        if EXACT:
                            grad_value += g * b * gained(dt, dt * rate[n], decay, EXACT)
                            grad_dt += g * b * decay * value
                            grad_A_n += g * b * value * dt * dt * relative_gain_slope(dt * rate[n] * LN2, decay)
                        else:
                            grad_x += g * b
                        h_n = kept if EXCLUSIVE == "own" else kept + x * b
                        e_before, grad_A = e_before + (g_kept * decay,), grad_A + (grad_A_n,)
                        grad_B, grad_C = grad_B + (g * x,), grad_C + (grad * h_n,)
                    e = e_before
                    sum_A = added(sum_A, grad_A, N)
                    shares = ()
                    if B_CONSTANT:
                        sum_B = added(sum_B, grad_B, N)
                    else:
                        shares = padded(grad_B, N, SLOTS, BD)
                    if C_CONSTANT:
                        sum_C = added(sum_C, grad_C, N)
                    else:
                        shares = shares + padded(grad_C, N, SLOTS, BD)
                    if LEVELS >= 0:
                        at = shares_of_voxels + tl.cast(voxel_i, tl.int64) * (1 << LEVELS)
                        is_share = at_voxel(lanes < (1 << LEVELS), voxel_i, True)
                        total = sum_over_lanes(shares, lanes, LEVELS)
                        if SHARES_ADD:
                            total += tl.load(at, mask=is_share, other=0.0)
                        tl.store(at, total, mask=is_share)
                    grad_dt += value * grad_x + grad_exponent * LN2
                    grad_d = tl.where(here, grad_dt * slopes[T - 1 - i], 0.0)
                    sum_bias += grad_d
                    put(grad_u_at, grad_u, voxel_i, channels, grad_value + dt * grad_x, here, U_ADDS, FAR)
                    put(grad_delta_at, grad_delta, voxel_i, channels, grad_d, here, DELTA_ADDS, FAR)
        if grad_initial is not None:
            if chunk == 0:
                at = states_at(grad_initial, route, batch, piece, all_channels, 1)
                store_states(at, grad_initial.state, e, all_inside, N, 1)
    store_states(states_at(share_A, route, 0, share, all_channels, 1), share_A.state, sum_A, all_inside, N, 1)
    if B_CONSTANT:
        store_states(states_at(share_B, route, 0, share, all_channels, 1), share_B.state, sum_B, all_inside, N, 1)
    if C_CONSTANT:
        store_states(states_at(share_C, route, 0, share, all_channels, 1), share_C.state, sum_C, all_inside, N, 1)
    if D is not None:
        tl.store(states_at(share_D, route, 0, share, all_channels, 1)[0], sum_D, mask=inside)
    if bias is not None:
        tl.store(states_at(share_bias, route, 0, share, all_channels, 1)[0], sum_bias, mask=inside)
    if weights is not None:
        tl.store(states_at(share_weights, route, 0, share, all_channels, 1)[0], sum_weights, mask=inside)


@triton.jit
def read_before(
    C, C_at, path, route, batch, first, token, h, channels, inside, lanes, dim, groups,
    CONSTANT: tl.constexpr, N: tl.constexpr, BD: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """C h at the last token of a piece that there is before one; zero where there is none."""
    token -= 1
    voxel, _, _ = seek(path, route, batch, token)
    while (token > first) & (voxel < 0):
        token -= 1
        voxel, _, _ = seek(path, route, batch, token)
    here = at_voxel(inside, voxel, True)
    c_now = spread(C_at, C, voxel, lanes, CONSTANT, N, FAR).to(tl.float32)
    out = tl.full([BD], 0.0, tl.float32)
    for n in tl.static_range(N):
        out += coefficient(C_at, C, c_now, n, channels, here, lanes, dim, groups, CONSTANT) * h[n]
    return out


@triton.jit
def put_aside(aside, span, h, before, inside, EXCLUSIVE: tl.constexpr, N: tl.constexpr, BD: tl.constexpr):
    """Keep what a span starts from."""
    at = aside + span * ((N + 1) * BD)
    store_states((at,), BD, h, inside, N, 1)
    if EXCLUSIVE == "shift":
        tl.store(at + N * BD, before, mask=inside[0])


@triton.jit
def added(sums, values, N: tl.constexpr):
    """The sums of two tuples, one by one."""
    found = ()
    for n in tl.static_range(N):
        found = found + (sums[n] + values[n],)
    return found


@triton.jit
def padded(values, N: tl.constexpr, SLOTS: tl.constexpr, BD: tl.constexpr):
    """N tensors, and zeros up to a number of them."""
    found = values
    for _ in tl.static_range(N, SLOTS):
        found = found + (tl.full([BD], 0.0, tl.float32),)
    return found


@triton.jit(do_not_specialize=SIZES)
def chunk_adjoints(
    delta, A, C, z, bias, weights, grad_y, ends, totals, path,
    dim, groups, C_groups, workers, chunks, chunk_tokens, y_scale,
    N: tl.constexpr, BD: tl.constexpr, SOFTPLUS: tl.constexpr, C_CONSTANT: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """What every chunk hands to the state before it from an adjoint of zero, and its sum of dt."""
    CAN_MISS: tl.constexpr = path.table is not None
    route, share = tl.program_id(2), tl.program_id(0)
    worker, batch = share % workers, share // workers
    all_channels, all_inside, first_channel = own_channels(dim, groups, BD, 1)
    channels, inside = all_channels[0], all_inside[0]
    lanes = tl.arange(0, BD)
    rate = rates(A, route, all_channels, all_inside, N, 1)
    scale, tempo = tl.load(path.scale + route), pace(path, route)
    delta_at, grad_y_at = of_item(delta, route, batch), of_item(grad_y, route, batch)
    C_at = coefficients(C, route, batch, first_channel, dim, C_groups, C_CONSTANT)
    if z is not None:
        z_at = of_item(z, route, batch)
    nothing = tl.full([BD], 0.0, tl.float32)
    shift = row(bias, route, batch, all_channels, all_inside, nothing, 1)[0]
    weight = row(weights, route, batch, all_channels, all_inside, nothing + 1.0, 1)[0] * y_scale
    for place in range(worker, field(path, route, PIECES) * chunks, workers):
        piece, chunk = place // chunks, place % chunks
        first, end = bounds(path, route, piece)
        begin = tl.minimum(first + chunk * chunk_tokens, end)
        stop = tl.minimum(begin + chunk_tokens, end)
        e = zeros(N, BD)
        total = nothing
        voxel, fast, mid = seek(path, route, batch, tl.maximum(stop - 1, 0))
        for _ in range(begin, stop):
            here = at_voxel(inside, voxel, CAN_MISS)
            x = read(delta_at, delta, voxel, channels, here, FAR)
            grad = read(grad_y_at, grad_y, voxel, channels, here, FAR)
            c_now = spread(C_at, C, voxel, lanes, C_CONSTANT, N, FAR)
            if z is not None:
                gate = read(z_at, z, voxel, channels, here, FAR).to(tl.float32)
            dt, _slope = step_size(x.to(tl.float32) + shift, scale, here, SOFTPLUS)
            grad = grad.to(tl.float32) * weight
            if z is not None:
                grad *= gate * sigmoid(gate)
            c_now = c_now.to(tl.float32)
            e_before = ()
            for n in tl.static_range(N):
                c = coefficient(C_at, C, c_now, n, channels, here, lanes, dim, C_groups, C_CONSTANT)
                e_before = e_before + (tl.exp2(dt * rate[n]) * (e[n] + c * grad),)
            e = e_before
            total += dt
            voxel, fast, mid = retreat(path, route, batch, tempo, voxel, fast, mid)
        store_states(states_at(ends, route, batch, place, all_channels, 1), ends.state, e, all_inside, N, 1)
        tl.store(states_at(totals, route, batch, place, all_channels, 1)[0], total, mask=inside)

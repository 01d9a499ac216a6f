"""The scan, backward: tiles in reverse order, each computed again from the states that the forward pass kept.

For each block of channels and chunk of states of a tile: the decays and what they leave of the states are computed into
scratch memory, then time is walked back, see `words.retreat`. Sums over channels are sums over the lanes of vectors.

Blocks are dealt to parts by shape alone. A part adds up its blocks' dB and dC in their order, parts are added two by
two as in a tournament, and an item of work has a whole branch of it: no sum depends on how many threads there are.
"""

from functools import cache
from typing import Any, NamedTuple

from numba import types

from umamba_seg.kernels.numba.blocks import (
    block_of,
    fetch_coefficients,
    has_dots,
    load_states,
    put_coefficients,
    states_at,
    store_states,
)
from umamba_seg.kernels.numba.frame import DDELTA, DELTA, DU, DZ, GRAD_Y, OWN, ROW, SHIFT, TILE, B, C, U, Z
from umamba_seg.kernels.numba.scratch import BackwardScratch, backward_scratch
from umamba_seg.kernels.numba.tiles import (
    add_branches,
    add_scaled,
    called_with,
    dot_rows,
    fetch,
    find_before,
    finish_inner,
    finish_outer,
    inline,
    next_rows,
    number_tokens,
    options_of,
    piece_bounds,
    place,
    place_of_result,
    prepare,
    put,
    rows_of,
    shift,
    shift_back,
    sizes_of,
    states_of,
    sum_lanes,
    sum_present,
    sum_products,
    sums_of,
    ungate,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance_exactly_saving,
    advance_saving,
    broadcast_tuple,
    fma,
    least,
    load,
    load_first,
    load_int,
    load_ints,
    load_tuple,
    mul,
    named,
    prefetch_rows,
    read_states,
    retreat,
    retreat_exactly,
    splat,
    store,
    store_first,
    store_tuple,
    swap_halves,
)


class Item(NamedTuple):
    """What is walked back: sequences, groups and parts of blocks, each from one number to another.

    Then the run that its sums belong to, the number of all parts, and how many bytes behind dB and dC of the frame its
    own lie.
    """

    first_sequence: int
    last_sequence: int
    first_group: int
    last_group: int
    first_part: int
    last_part: int
    run: int
    parts: int
    to_db: int
    to_dc: int


laid_out = called_with(5, named(BackwardScratch))(backward_scratch)


@inline
def all_rows(sizes):
    """Bytes of a row of each block of each group."""
    return sizes.groups * sizes.blocks * ROW


@inline
def add_to(at, row):
    """Add to a row in memory."""
    store(at, add(load(at), row))


@inline
def add_products(products, inner, x, steps):
    """Add inner * x of a block's tile to that of the blocks before: the gradient of C * B of a token."""
    for t in range(steps):
        at = t * ROW
        store(products + at, fma(load(inner + at), load(x + at), load(products + at)))


@inline
def add_own_products(s, grads, chunk, first, last, steps):
    """What tokens read of their own input gives to dB and dC: the other one, times the sum of g * x over channels.

    So far it was left out, as the sum C * B is one number for all channels.
    """
    sum_lanes(s.factors, s.products, steps)
    for k in range(first, last):
        for t in range(steps):
            at = (k * TILE + t) * 8 * chunk
            other = swap_halves(load_first(s.packed + at, 2 * chunk), chunk)
            factor = broadcast_tuple(s.factors + 4 * t, 1)[0]
            total = fma(other, factor, load_first(grads + at, 2 * chunk))
            store_first(grads + at, total, 2 * chunk)


@cache
def ends_of_a_tile(chunk: int, is_exact: bool) -> tuple[Any, Any]:
    """What is done with a block's tile before the recurrence, and what after it."""

    @called_with(8, types.UniTuple(types.int64, 6))
    def enter(frame, scratch, batch, group, number, to_skip, steps, spacing):
        """What a block's tile is before the recurrence: dt and x, and in `inner` the gradient of what it gives.

        What goes to the gradient of D is added to a row. Returns the places of u, of the gradient of y, and of z.
        """
        sizes, options, rows = sizes_of(frame), options_of(frame), rows_of(frame)
        walk, s, block = walk_of(frame), laid_out(scratch, chunk, sizes.chunks, 0, 0), block_of(sizes, group, number)
        first, lanes, tokens = block.first, block.lanes, s.tokens
        u = place(s.u, frame + U, batch, group, first, lanes, tokens, steps, spacing)
        delta = place(s.dt, frame + DELTA, batch, group, first, lanes, tokens, steps, spacing)
        g = place(s.g, frame + GRAD_Y, batch, group, first, lanes, tokens, steps, spacing)
        z, is_gated = u, load_int(frame + Z) != 0
        if is_gated:
            z = place(s.z, frame + Z, batch, group, first, lanes, tokens, steps, spacing)
        prepare(
            s.dt, s.x, delta, u, load(rows.bias + block.row), options.softplus != 0, options.is_scaled != 0,
            load(rows.dt_scale), tokens, walk.table != 0, steps,
        )  # fmt: skip
        ungate(s.inner, g, z, load(rows.weight + batch * rows.weight_batch + block.row), is_gated, steps)
        add_to(to_skip, sum_products(s.inner, u, steps))
        return u[0], u[1], g[0], g[1], z[0], z[1]

    @called_with(15)
    def leave(
        frame, scratch, batch, group, number, to_weight, to_bias, steps, spacing, u_at, u_by, g_at, g_by, z_at, z_by
    ):
        """From the gradients of x and dt to those of u, delta and z; what goes to weights and bias is added to rows."""
        sizes, options, rows = sizes_of(frame), options_of(frame), rows_of(frame)
        wants_weight = sums_of(frame).grad_weight != 0
        walk, s, block = walk_of(frame), laid_out(scratch, chunk, sizes.chunks, 0, 0), block_of(sizes, group, number)
        first, lanes, tokens = block.first, block.lanes, s.tokens
        u, g, z, is_gated = (u_at, u_by), (g_at, g_by), (z_at, z_by), load_int(frame + Z) != 0
        weight, skip = load(rows.weight + batch * rows.weight_batch + block.row), load(rows.skip + block.row)
        if has_dots(options.mode, is_exact):
            add_scaled(s.y, s.x, s.dots, steps)
            add_scaled(s.gx, s.inner, s.dots, steps)
        if options.mode == SHIFT:
            shift(s.y, s.shifted, tokens, steps)
            ungate(s.inner, g, z, weight, is_gated, steps)
        if is_gated or wants_weight:
            dz = u
            if is_gated:
                dz = place_of_result(s.z, frame + DZ, batch, group, first, lanes, tokens, steps, spacing)
            total = finish_outer(dz, s.y, g, u, z, skip, weight, is_gated, steps)
            if wants_weight:
                add_to(to_weight, total)
            if is_gated and dz[0] == s.z:
                put(frame + DZ, 0, batch, group, first, lanes, tokens, steps, s.z, ROW)
        du = place_of_result(s.gx, frame + DU, batch, group, first, lanes, tokens, steps, spacing)
        ddelta = place_of_result(s.gdt, frame + DDELTA, batch, group, first, lanes, tokens, steps, spacing)
        finish_inner(
            du, ddelta, s.gx, s.gdt, s.inner, u, s.dt, skip, options.softplus != 0, load(rows.dt_scale),
            load(rows.dt_unscale), is_exact, steps,
        )  # fmt: skip
        add_to(to_bias, sum_present(s.gdt, tokens, walk.table != 0, steps))
        if du[0] == s.gx:
            put(frame + DU, 0, batch, group, first, lanes, tokens, steps, s.gx, ROW)
        if ddelta[0] == s.gdt:
            put(frame + DDELTA, 0, batch, group, first, lanes, tokens, steps, s.gdt, ROW)

    return enter, leave


@cache
def source(chunk: int, is_exact: bool) -> Any:
    """The kernel for chunks of so many states, at most half as many as a vector has lanes."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    half = 4 * chunk
    tile_pitch = TILE * pitch
    chunk_bytes = chunk * ROW
    step = advance_exactly_saving if is_exact else advance_saving
    step_back = retreat_exactly if is_exact else retreat
    enter, leave = ends_of_a_tile(chunk, is_exact)

    @inline
    def fetch_before(s, sizes, frame, batch, group):
        """C of the token before the tile."""
        for k in range(sizes.chunks):
            n, to = least(chunk, sizes.states - k * chunk), s.packed_before + k * pitch + half
            fetch(to, pitch, chunk, frame + C, batch, group, k * chunk, n, s.tokens_before, 1)

    @called_with(13)
    def cross(frame, scratch, batch, group, number, run, steps, u, u_pitch, carried, grads, reads_before, is_first):
        """The recurrence: forward once more from the states in `before`, and back with their gradients `carried`.

        Meanwhile the memory brings what the next tile needs.
        """
        sizes, rows, sums = sizes_of(frame), rows_of(frame), sums_of(frame)
        s, block, own = laid_out(scratch, chunk, sizes.chunks, 0, 0), block_of(sizes, group, number), splat(0.0)
        if options_of(frame).mode != OWN:
            own = splat(1.0)
        first, tokens = block.first, s.tokens
        to_read = (
            next_rows(frame, U, batch, group, first, tokens), next_rows(frame, DELTA, batch, group, first, tokens),
            next_rows(frame, Z, batch, group, first, tokens), next_rows(frame, GRAD_Y, batch, group, first, tokens),
        )  # fmt: skip
        to_write = (
            next_rows(frame, DU, batch, group, first, tokens), next_rows(frame, DDELTA, batch, group, first, tokens),
            next_rows(frame, DZ, batch, group, first, tokens),
        )  # fmt: skip
        # what blocks share is asked for with the first of them
        to_read_once = (next_rows(frame, B, batch, group, 0, tokens), next_rows(frame, C, batch, group, 0, tokens))
        for k in range(sizes.chunks):
            of_chunk, bc = k * chunk_bytes, s.packed + k * tile_pitch
            of_rates = block.row * sizes.chunks * chunk + of_chunk
            a, inverse = load_tuple(rows.rates + of_rates, chunk), load_tuple(rows.inverse_rates + of_rates, chunk)
            h = load_tuple(s.before + of_chunk, chunk)
            if reads_before != 0:
                add_to(s.shifted, read_states(h, s.packed_before + k * pitch))
            for t in range(steps):
                at, inner_at = t * ROW, t * chunk_bytes
                prefetch_rows(to_read, load_int(tokens + 8 * t), t)
                if is_first != 0:
                    prefetch_rows(to_read_once, load_int(tokens + 8 * t), t)
                h, read = step(
                    h, a, inverse, load(s.dt + at), load(s.x + at), load(u + t * u_pitch), bc + t * pitch, own,
                    s.decays + inner_at, s.kept + inner_at,
                )  # fmt: skip
                if k > 0:
                    read = add(read, load(s.y + at))
                store(s.y + at, read)

            carry, grad_a = load_tuple(carried + of_chunk, chunk), mul(a, splat(0.0))
            for from_end in range(steps):
                t = steps - 1 - from_end
                at, inner_at = t * ROW, t * chunk_bytes
                prefetch_rows(to_write, load_int(tokens + 8 * t), t)
                carry, grad_a, for_x, for_dt = step_back(
                    carry, grad_a, a, inverse, load(s.inner + at), load(s.dt + at), load(s.x + at),
                    load(u + t * u_pitch), bc + t * pitch, own, s.decays + inner_at, s.kept + inner_at,
                    grads + k * tile_pitch + t * pitch,
                )  # fmt: skip
                if k > 0:
                    for_x = add(for_x, load(s.gx + at))
                    for_dt = add(for_dt, load(s.gdt + at))
                store(s.gx + at, for_x)
                store(s.gdt + at, for_dt)
            store_tuple(carried + of_chunk, carry)
            to = sums.grad_rates + run * all_rows(sizes) * sizes.chunks * chunk + of_rates
            store_tuple(to, add(load_tuple(to, chunk), grad_a))

    def backward(frame, item, scratch):
        """Walk back what an item names, see `Item`."""
        sizes, states, mode = sizes_of(frame), states_of(frame), options_of(frame).mode
        walk, sums = walk_of(frame), sums_of(frame)
        item = Item(*load_ints(item, 10))
        blocks, chunks, run = sizes.blocks, sizes.chunks, item.run
        parts_here, part_bytes = item.last_part - item.first_part, chunks * tile_pitch
        first_block = blocks * item.first_part // item.parts
        blocks_here = blocks * item.last_part // item.parts - first_block
        s = laid_out(scratch, chunk, chunks, parts_here, (item.last_group - item.first_group) * blocks_here)
        token_before, spacing = -1, 0

        for sequence in range(item.first_sequence, item.last_sequence):
            batch, piece = sequence // walk.pieces, sequence % walk.pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            grad_initial = states_at(states.grad_initial, sizes, sequence)
            # one round more than there are tiles: the first one has no tokens and fetches what comes from behind
            for back in range(tiles + 1):
                tile = tiles - back
                t0 = begin + tile * TILE
                steps = least(TILE, end - t0)
                before = states_at(states.initial, sizes, sequence)  # where the states before this tile are
                if tile > 0:
                    before = states_at(states.checkpoints, sizes, batch * walk.slots + t0 // TILE)
                if back > 0:
                    spacing = number_tokens(s.tokens, frame, batch, t0, steps)
                    if mode == SHIFT:
                        token_before = find_before(s.tokens_before, frame, batch, begin, t0)
                for group in range(item.first_group, item.last_group):
                    if back > 0:
                        if token_before >= 0:
                            fetch_before(s, sizes, frame, batch, group)
                        fetch_coefficients(s.packed, chunk, 0, chunks, sizes, frame, batch, group, s.tokens, steps)
                        if has_dots(mode, is_exact):
                            dot_rows(s.dots, s.products, s.packed, pitch, chunk, chunks, steps)
                        zero(s.grads, parts_here * part_bytes // ROW)
                    for part in range(item.first_part, item.last_part):
                        grads = s.grads + (part - item.first_part) * part_bytes
                        zero(s.products, TILE)
                        for number in range(blocks * part // item.parts, blocks * (part + 1) // item.parts):
                            block = block_of(sizes, group, number)
                            slot = (group - item.first_group) * blocks_here + number - first_block
                            carried, shift_at = s.carries + slot * chunks * chunk_bytes, s.shifts + slot * ROW
                            if back == 0:
                                store(shift_at, splat(0.0))
                                grad_last = states_at(states.grad_last, sizes, sequence)
                                load_states(carried, grad_last, chunk, 0, chunks, sizes, block)
                            else:
                                to_sums = run * all_rows(sizes) + block.row
                                u, u_by, g, g_by, z, z_by = enter(
                                    frame, scratch, batch, group, number, sums.grad_skip + to_sums, steps, spacing
                                )
                                if mode == SHIFT:
                                    shift_back(s.inner, shift_at, s.tokens, steps)
                                    store(s.shifted, splat(0.0))
                                load_states(s.before, before, chunk, 0, chunks, sizes, block)
                                cross(
                                    frame, scratch, batch, group, number, run, steps, u, u_by, carried, grads,
                                    token_before >= 0, number == first_block,
                                )  # fmt: skip
                                if has_dots(mode, is_exact):
                                    add_products(s.products, s.inner, s.x, steps)
                                leave(
                                    frame, scratch, batch, group, number, sums.grad_weight + to_sums,
                                    sums.grad_bias + to_sums, steps, spacing, u, u_by, g, g_by, z, z_by,
                                )  # fmt: skip
                            if tile == 0 and grad_initial != 0:
                                store_states(grad_initial, carried, chunk, 0, chunks, sizes, block)
                        if back > 0 and has_dots(mode, is_exact):
                            add_own_products(s, grads, chunk, 0, chunks, steps)
                    if back > 0:
                        add_branches(s.grads, parts_here, part_bytes)
                        to_branch = (item.to_db, item.to_dc)
                        put_coefficients(
                            s.grads, chunk, 0, chunks, sizes, frame, to_branch, batch, group, s.tokens, steps
                        )

    return backward

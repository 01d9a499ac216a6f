"""The scan, forward: one kernel for every number of states, which are cut into chunks that fit the registers.

Time goes by tiles; in a tile, block after block of channels is scanned, so that whole rows of memory are read at once.
"""

from functools import cache
from typing import Any

from numba import types

from umamba_seg.kernels.numba.blocks import block_of, fetch_coefficients, has_dots, load_states, states_at, store_states
from umamba_seg.kernels.numba.frame import DELTA, OWN, ROW, SHIFT, TILE, B, C, U, Y, Z
from umamba_seg.kernels.numba.scratch import ForwardScratch, forward_scratch
from umamba_seg.kernels.numba.tiles import (
    add_scaled,
    called_with,
    dot_rows,
    finish,
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
    sizes_of,
    states_of,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance,
    advance_exactly,
    least,
    load,
    load_int,
    load_ints,
    load_tuple,
    named,
    prefetch_rows,
    splat,
    store,
    store_tuple,
)

laid_out = called_with(4, named(ForwardScratch))(forward_scratch)


@cache
def ends_of_a_tile(chunk: int, is_exact: bool) -> tuple[Any, Any]:
    """What is done with a block's tile before the recurrence, and what after it."""

    @called_with(8, types.UniTuple(types.int64, 4))
    def enter(frame, scratch, batch, group, number, steps, spacing, wants_z):
        """What a block's tile is before the recurrence: dt and x. Returns the places of u and z."""
        sizes, options, rows = sizes_of(frame), options_of(frame), rows_of(frame)
        walk, s, block = walk_of(frame), laid_out(scratch, chunk, sizes.chunks, 0), block_of(sizes, group, number)
        first, lanes, tokens = block.first, block.lanes, s.tokens
        u = place(s.u, frame + U, batch, group, first, lanes, tokens, steps, spacing)
        delta = place(s.dt, frame + DELTA, batch, group, first, lanes, tokens, steps, spacing)
        z = u
        if wants_z != 0 and load_int(frame + Z) != 0:
            z = place(s.z, frame + Z, batch, group, first, lanes, tokens, steps, spacing)
        prepare(
            s.dt, s.x, delta, u, load(rows.bias + block.row), options.softplus != 0,
            options.is_scaled != 0, load(rows.dt_scale), tokens, walk.table != 0, steps,
        )  # fmt: skip
        return u[0], u[1], z[0], z[1]

    @called_with(12)
    def leave(frame, scratch, batch, group, number, carry, steps, spacing, u_at, u_by, z_at, z_by):
        """What a block's tile gives: skip, weight and gate, and to where it belongs."""
        sizes, options, rows = sizes_of(frame), options_of(frame), rows_of(frame)
        s, block = laid_out(scratch, chunk, sizes.chunks, 0), block_of(sizes, group, number)
        first, lanes, tokens = block.first, block.lanes, s.tokens
        dots = s.zeros
        if has_dots(options.mode, is_exact):
            dots = s.dots
        if options.mode == SHIFT:
            if has_dots(options.mode, is_exact):
                add_scaled(s.y, s.x, dots, steps)
            shift(s.y, carry, tokens, steps)
            dots = s.zeros
        weight, skip = load(rows.weight + batch * rows.weight_batch + block.row), load(rows.skip + block.row)
        to = place_of_result(s.y, frame + Y, batch, group, first, lanes, tokens, steps, spacing)
        finish(
            to, s.y, (u_at, u_by), (z_at, z_by), s.x, dots, skip, options.is_weighted != 0, weight,
            load_int(frame + Z) != 0, steps,
        )  # fmt: skip
        if to[0] == s.y:
            put(frame + Y, 0, batch, group, first, lanes, tokens, steps, s.y, ROW)

    return enter, leave


@cache
def source(chunk: int, is_exact: bool) -> Any:
    """The kernel for chunks of so many states."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    chunk_bytes = chunk * ROW
    step = advance_exactly if is_exact else advance
    enter, leave = ends_of_a_tile(chunk, is_exact)

    @called_with(10)
    def cross(frame, scratch, batch, group, number, held, steps, u, u_pitch, is_first):
        """The recurrence: the states go through a tile; y is what C reads of them.

        It leaves the memory idle, which meanwhile brings the rows that the next tile needs.
        """
        sizes, rows = sizes_of(frame), rows_of(frame)
        s, block, own = laid_out(scratch, chunk, sizes.chunks, 0), block_of(sizes, group, number), splat(0.0)
        if options_of(frame).mode != OWN:
            own = splat(1.0)
        first, tokens = block.first, s.tokens
        upcoming = (
            next_rows(frame, U, batch, group, first, tokens), next_rows(frame, DELTA, batch, group, first, tokens),
            next_rows(frame, Z, batch, group, first, tokens), next_rows(frame, Y, batch, group, first, tokens),
        )  # fmt: skip
        # what blocks share is asked for with the first of them
        to_read_once = (next_rows(frame, B, batch, group, 0, tokens), next_rows(frame, C, batch, group, 0, tokens))
        for k in range(sizes.chunks):
            states, bc = held + k * chunk_bytes, s.packed + k * TILE * pitch
            at = block.row * sizes.chunks * chunk + k * chunk_bytes
            h, a = load_tuple(states, chunk), load_tuple(rows.rates + at, chunk)
            inverse = load_tuple(rows.inverse_rates + at, chunk)
            for t in range(steps):
                at = t * ROW
                prefetch_rows(upcoming, load_int(tokens + 8 * t), t)
                if is_first != 0:
                    prefetch_rows(to_read_once, load_int(tokens + 8 * t), t)
                h, read = step(
                    h, a, inverse, load(s.dt + at), load(s.x + at), load(u + t * u_pitch), bc + t * pitch, own
                )
                if k > 0:
                    read = add(read, load(s.y + at))
                store(s.y + at, read)
            store_tuple(states, h)

    def forward(frame, item, scratch):
        """Scan the sequences, groups and blocks from one number to another that an item names, six int64."""
        sizes, states, mode = sizes_of(frame), states_of(frame), options_of(frame).mode
        walk = walk_of(frame)
        first_sequence, last_sequence, first_group, last_group, first_block, last_block = load_ints(item, 6)
        in_item = last_block - first_block
        s = laid_out(scratch, chunk, sizes.chunks, (last_group - first_group) * in_item)
        zero(s.zeros, TILE)
        spacing = 0

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // walk.pieces, sequence % walk.pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            # one round more than there are tiles: the last one has no tokens and stores the last states
            for tile in range(tiles + 1):
                t0 = begin + tile * TILE
                steps = least(TILE, end - t0)
                is_last = tile == tiles
                kept = 0  # where the states before this tile are to be stored
                if is_last:
                    kept = states_at(states.last, sizes, sequence)
                elif tile > 0:
                    kept = states_at(states.checkpoints, sizes, batch * walk.slots + t0 // TILE)
                if not is_last:
                    spacing = number_tokens(s.tokens, frame, batch, t0, steps)
                for group in range(first_group, last_group):
                    if not is_last:
                        fetch_coefficients(
                            s.packed, chunk, 0, sizes.chunks, sizes, frame, batch, group, s.tokens, steps
                        )
                        if has_dots(mode, is_exact):
                            dot_rows(s.dots, s.products, s.packed, pitch, chunk, sizes.chunks, steps)
                    for number in range(first_block, last_block):
                        block = block_of(sizes, group, number)
                        place = (group - first_group) * in_item + number - first_block
                        held, carry = s.states + place * sizes.chunks * chunk_bytes, s.carries + place * ROW
                        if tile == 0:
                            store(carry, splat(0.0))
                            load_states(
                                held, states_at(states.initial, sizes, sequence), chunk, 0, sizes.chunks, sizes, block
                            )
                        if kept != 0:
                            store_states(kept, held, chunk, 0, sizes.chunks, sizes, block)
                        if not is_last:
                            u, u_by, z, z_by = enter(frame, scratch, batch, group, number, steps, spacing, 1)
                            cross(frame, scratch, batch, group, number, held, steps, u, u_by, number == first_block)
                            leave(frame, scratch, batch, group, number, carry, steps, spacing, u, u_by, z, z_by)

    return forward

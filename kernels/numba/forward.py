"""The scan, forward: one kernel for every number of states, which are cut into chunks that fit the registers.

Time goes by tiles; in a tile, block after block of channels is scanned, so that whole rows of memory are read at once.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba.frame import LANES, OWN, ROW, SHIFT
from umamba_seg.kernels.numba.tiles import (
    TILE,
    TILE_BYTES,
    add_scaled,
    dot_rows,
    fetch,
    finish,
    number_tokens,
    piece_bounds,
    place_of_result,
    prepare,
    put,
    shift,
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
    load_state,
    load_tuple,
    splat,
    store,
    store_state,
    store_tuple,
)

U, DELTA, Z, Y, B, C = (fields.place(name) for name in ("u", "delta", "z", "y", "B", "C"))
SIZES, ROWS, STATES = fields.place("groups"), fields.place("dt_scale"), fields.place("initial")
PIECES = fields.place("pieces")


@cache
def forward_source(chunk: int, is_exact: bool) -> Any:
    """The kernel for chunks of so many states."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    half = 4 * chunk
    chunk_bytes = chunk * ROW
    step = advance_exactly if is_exact else advance

    def forward(frame, item, scratch):
        """Scan the sequences, groups and blocks from one number to another that an item names, six int64."""
        dt, x, u = scratch, scratch + TILE_BYTES, scratch + 2 * TILE_BYTES
        y, z, zeros = scratch + 3 * TILE_BYTES, scratch + 4 * TILE_BYTES, scratch + 5 * TILE_BYTES
        products = scratch + 6 * TILE_BYTES
        tokens = scratch + 7 * TILE_BYTES
        dots = tokens + 8 * TILE
        packed = dots + 8 * TILE
        groups, channels, blocks, states, chunks, softplus, mode, scaled, weighted = load_ints(frame + SIZES, 9)
        pieces, table, _table_batch, slots, ahead = load_ints(frame + PIECES, 5)
        scale_row, _unscale, rates, inverse_rates, biases, skips, weights, weight_batch = load_ints(frame + ROWS, 8)
        initial, last_states, checkpoints = load_ints(frame + STATES, 3)
        first_sequence, last_sequence, first_group, last_group, first_block, last_block = load_ints(item, 6)

        block_bytes = chunks * chunk_bytes
        in_item = last_block - first_block
        states_of_all = packed + chunks * TILE * pitch
        carries = states_of_all + (last_group - first_group) * in_item * block_bytes
        wide = 4 * groups * channels  # bytes from one state to the next where states are kept
        is_padded, is_gated, is_scaled, is_weighted = table != 0, load_int(frame + Z) != 0, scaled != 0, weighted != 0
        scale, own = load(scale_row), splat(0.0)
        if mode != OWN:
            own = splat(1.0)
        zero(zeros, TILE)
        spacing = 0

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // pieces, sequence % pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            # one round more than there are tiles: the last one has no tokens and stores the last states
            for tile in range(tiles + 1):
                t0 = begin + tile * TILE
                steps = least(TILE, end - t0)
                is_last = tile == tiles
                if not is_last:
                    spacing = number_tokens(tokens, frame, batch, t0, steps)
                for group in range(first_group, last_group):
                    if not is_last:
                        for k in range(chunks):
                            n0 = k * chunk
                            n = least(chunk, states - n0)
                            to = packed + k * TILE * pitch
                            fetch(to, pitch, chunk, frame + B, batch, group, n0, n, tokens, steps, ahead)
                            fetch(to + half, pitch, chunk, frame + C, batch, group, n0, n, tokens, steps, ahead)
                        if mode != OWN and not is_exact:
                            dot_rows(dots, products, packed, pitch, chunk, chunks, steps)
                    for block in range(first_block, last_block):
                        first = block * LANES
                        lanes = least(LANES, channels - first)
                        number = (group - first_group) * in_item + block - first_block
                        held = states_of_all + number * block_bytes
                        carry = carries + number * ROW
                        row = (group * blocks + block) * ROW
                        channel = 4 * (group * channels + first)

                        if tile == 0:
                            store(carry, splat(0.0))
                            for k in range(chunks):
                                if initial == 0:
                                    zero(held + k * chunk_bytes, chunk)
                                else:
                                    n0 = k * chunk
                                    at = initial + (sequence * states + n0) * wide + channel
                                    store_tuple(held + k * chunk_bytes, load_state(at, wide, lanes, states - n0, chunk))
                        kept = 0  # where the states before this tile are to be stored
                        if is_last and last_states != 0:
                            kept = last_states + sequence * states * wide
                        elif tile > 0 and not is_last and checkpoints != 0:
                            kept = checkpoints + (batch * slots + t0 // TILE) * states * wide
                        if kept != 0:
                            for k in range(chunks):
                                n0 = k * chunk
                                at = kept + n0 * wide + channel
                                store_state(at, wide, lanes, states - n0, load_tuple(held + k * chunk_bytes, chunk))
                        if is_last:
                            continue

                        # copies side by side: rows as far apart as in memory push each other out of the cache
                        fetch(u, ROW, LANES, frame + U, batch, group, first, lanes, tokens, steps, ahead)
                        fetch(dt, ROW, LANES, frame + DELTA, batch, group, first, lanes, tokens, steps, ahead)
                        if is_gated:
                            fetch(z, ROW, LANES, frame + Z, batch, group, first, lanes, tokens, steps, ahead)
                        u_place, delta, z_place = (u, ROW), (dt, ROW), (z, ROW)
                        bias = load(biases + row)
                        prepare(dt, x, delta, u_place, bias, softplus != 0, is_scaled, scale, tokens, is_padded, steps)

                        for k in range(chunks):
                            h = load_tuple(held + k * chunk_bytes, chunk)
                            a = load_tuple(rates + row * chunks * chunk + k * chunk_bytes, chunk)
                            inverse = load_tuple(inverse_rates + row * chunks * chunk + k * chunk_bytes, chunk)
                            bc = packed + k * TILE * pitch
                            for t in range(steps):
                                at = t * ROW
                                u_row = load(u + at)
                                h, read = step(h, a, inverse, load(dt + at), load(x + at), u_row, bc + t * pitch, own)
                                if k > 0:
                                    read = add(read, load(y + t * ROW))
                                store(y + t * ROW, read)
                            store_tuple(held + k * chunk_bytes, h)

                        own_dots = zeros if mode == OWN or is_exact else dots
                        if mode == SHIFT:
                            if not is_exact:
                                add_scaled(y, x, dots, steps)
                            shift(y, carry, tokens, steps)
                            own_dots = zeros
                        weight = load(weights + batch * weight_batch + row)
                        to = place_of_result(y, frame + Y, batch, group, first, lanes, tokens, steps, spacing, ahead)
                        skip = load(skips + row)
                        finish(to, y, u_place, z_place, x, own_dots, skip, is_weighted, weight, is_gated, steps)
                        if to[0] == y:
                            put(frame + Y, 0, batch, group, first, lanes, tokens, steps, y, ROW)

    return forward

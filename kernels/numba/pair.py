"""Both directions of short lines in one go, forward: the tokens are read once, and their decays are computed once.

For routes that share u, delta and A and are each other's reverse, one tile holding a whole line. The first direction
leaves its decays in scratch memory, the second one takes them from there, against their order.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba.frame import LANES, OWN, ROW
from umamba_seg.kernels.numba.tiles import (
    TILE,
    TILE_BYTES,
    WIDE,
    add_scaled,
    dot_rows,
    fetch,
    finish,
    number_tokens,
    piece_bounds,
    place,
    place_of_result,
    prepare,
    put,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance_keeping_decays,
    advance_with_decays,
    fma,
    least,
    load,
    load_int,
    load_ints,
    load_tuple,
    mul,
    splat,
    store,
    store_tuple,
)

U, DELTA, Z, Y, B, C = (fields.place(name) for name in ("u", "delta", "z", "y", "B", "C"))
SIZES, ROWS, PIECES, PARTNER = (fields.place(name) for name in ("groups", "dt_scale", "pieces", "partner"))


@cache
def pair_source(chunk: int) -> Any:
    """The kernel for chunks of so many states."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    half = 4 * chunk
    chunk_bytes = chunk * ROW

    def forward_pair(frame, item, scratch):
        """Scan what an item names both ways; the frame's partner has B, C, D and weights of the second one."""
        dt, x, u = scratch, scratch + TILE_BYTES, scratch + 2 * TILE_BYTES
        y, z, zeros, reverse = (
            scratch + 3 * TILE_BYTES, scratch + 4 * TILE_BYTES, scratch + 5 * TILE_BYTES, scratch + 6 * TILE_BYTES,
        )  # fmt: skip
        tokens = scratch + 7 * TILE_BYTES
        dots = tokens + 8 * TILE
        _groups, channels, _blocks, states, chunks, softplus, mode, scaled, weighted = load_ints(frame + SIZES, 9)
        pieces, _table, _table_batch, _slots, ahead = load_ints(frame + PIECES, 5)
        scale_row, _unscale, rates, _inverse, biases, skips, weights, weight_batch = load_ints(frame + ROWS, 8)
        partner = load_int(frame + PARTNER)
        _, _, _, _, _, skips_back, weights_back, _ = load_ints(partner + ROWS, 8)
        first_sequence, last_sequence, _, _, first_block, last_block = load_ints(item, 6)

        packed = dots + 8 * TILE  # [direction][chunk][token][B and C]
        direction_bytes = chunks * TILE * pitch
        decays = packed + 2 * direction_bytes
        is_gated, is_scaled, is_weighted, scale = load_int(frame + Z) != 0, scaled != 0, weighted != 0, load(scale_row)
        zero(zeros, TILE)

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // pieces, sequence % pieces
            begin, end = piece_bounds(frame, piece)
            steps = end - begin
            spacing = number_tokens(tokens, frame, batch, begin, steps)
            for direction in range(2):
                source = frame
                if direction == 1:
                    source = partner
                bc = packed + direction * direction_bytes
                for k in range(chunks):
                    n0 = k * chunk
                    n, to = least(chunk, states - n0), bc + k * TILE * pitch
                    fetch(to, pitch, chunk, source + B, batch, 0, n0, n, tokens, steps, ahead)
                    fetch(to + half, pitch, chunk, source + C, batch, 0, n0, n, tokens, steps, ahead)
                if mode != OWN:
                    dot_rows(dots + direction * 4 * TILE, reverse, bc, pitch, chunk, chunks, steps)
            for block in range(first_block, last_block):
                first, row = block * LANES, block * ROW
                lanes = least(LANES, channels - first)
                u_place = place(u, frame + U, batch, 0, first, lanes, tokens, steps, spacing, ahead)
                delta = place(dt, frame + DELTA, batch, 0, first, lanes, tokens, steps, spacing, ahead)
                z_place = u_place
                if is_gated:
                    z_place = place(z, frame + Z, batch, 0, first, lanes, tokens, steps, spacing, ahead)
                prepare(
                    dt, x, delta, u_place, load(biases + row), softplus != 0, is_scaled, scale, tokens, False, steps
                )

                for k in range(chunks):
                    a = load_tuple(rates + row * chunks * chunk + k * chunk_bytes, chunk)
                    bc = packed + k * TILE * pitch
                    h = mul(a, splat(0.0))
                    for t in range(steps):
                        at = t * ROW
                        h, read = advance_keeping_decays(
                            h, a, load(dt + at), load(x + at), bc + t * pitch, decays + t * chunk_bytes
                        )
                        if k > 0:
                            read = add(read, load(y + at))
                        store(y + at, read)
                    h, bc = mul(a, splat(0.0)), bc + direction_bytes
                    for back in range(steps):
                        t = steps - 1 - back
                        at = t * ROW
                        h, read = advance_with_decays(h, load(x + at), bc + t * pitch, decays + t * chunk_bytes)
                        if k > 0:
                            read = add(read, load(reverse + at))
                        store(reverse + at, read)

                if mode != OWN:
                    add_scaled(y, x, dots, steps)
                    add_scaled(reverse, x, dots + 4 * TILE, steps)
                weight = load(weights + batch * weight_batch + row)
                weight_back = load(weights_back + batch * weight_batch + row)
                skip = fma(load(skips + row), weight, mul(load(skips_back + row), weight_back))
                for t in range(0, steps, WIDE):
                    there, back_again = load_tuple(y + t * ROW, WIDE), load_tuple(reverse + t * ROW, WIDE)
                    if is_weighted:
                        there, back_again = mul(there, weight), mul(back_again, weight_back)
                    store_tuple(y + t * ROW, add(there, back_again))
                to = place_of_result(y, frame + Y, batch, 0, first, lanes, tokens, steps, spacing, ahead)
                finish(to, y, u_place, z_place, x, zeros, skip, False, weight, is_gated, steps)
                if to[0] == y:
                    put(frame + Y, 0, batch, 0, first, lanes, tokens, steps, y, ROW)

    return forward_pair

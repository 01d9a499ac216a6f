"""Both directions of short lines in one go, forward: the tokens are read once, and their decays are computed once.

For routes that share u, delta and A and are each other's reverse, one tile holding a whole line. The first direction
leaves its decays in scratch memory, the second one takes them from there, against their order.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba.blocks import block_of, fetch_coefficients, has_dots
from umamba_seg.kernels.numba.frame import DELTA, ROW, TILE, U, Y, Z
from umamba_seg.kernels.numba.scratch import PairScratch, pair_scratch
from umamba_seg.kernels.numba.tiles import (
    WIDE,
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
    sizes_of,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance_keeping_decays,
    advance_with_decays,
    fma,
    load,
    load_int,
    load_ints,
    load_tuple,
    mul,
    named,
    prefetch_rows,
    splat,
    store,
    store_tuple,
)

laid_out = called_with(3, named(PairScratch))(pair_scratch)


@cache
def source(chunk: int) -> Any:
    """The kernel for chunks of so many states."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    chunk_bytes = chunk * ROW

    def forward_pair(frame, item, scratch):
        """Scan what an item names both ways; the frame's partner has B, C, D and weights of the second one."""
        sizes, options, rows = sizes_of(frame), options_of(frame), rows_of(frame)
        pieces = walk_of(frame).pieces
        rows_back = rows_of(rows.partner)
        first_sequence, last_sequence, _, _, first_block, last_block = load_ints(item, 6)
        dt, x, u, y, z, zeros, reverse, tokens, dots, packed, decays, _end = laid_out(scratch, chunk, sizes.chunks)
        direction_bytes = sizes.chunks * TILE * pitch
        is_gated = load_int(frame + Z) != 0
        zero(zeros, TILE)

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // pieces, sequence % pieces
            begin, end = piece_bounds(frame, piece)
            steps = end - begin
            spacing = number_tokens(tokens, frame, batch, begin, steps)
            for direction in range(2):
                source = frame
                if direction == 1:
                    source = rows.partner
                bc = packed + direction * direction_bytes
                fetch_coefficients(bc, chunk, 0, sizes.chunks, sizes, source, batch, 0, tokens, steps)
                if has_dots(options.mode, False):
                    dot_rows(dots + direction * 4 * TILE, reverse, bc, pitch, chunk, sizes.chunks, steps)
            for number in range(first_block, last_block):
                block = block_of(sizes, 0, number)
                first, lanes, row = block.first, block.lanes, block.row
                u_place = place(u, frame + U, batch, 0, first, lanes, tokens, steps, spacing)
                delta = place(dt, frame + DELTA, batch, 0, first, lanes, tokens, steps, spacing)
                z_place = u_place
                if is_gated:
                    z_place = place(z, frame + Z, batch, 0, first, lanes, tokens, steps, spacing)
                prepare(
                    dt, x, delta, u_place, load(rows.bias + row), options.softplus != 0, options.is_scaled != 0,
                    load(rows.dt_scale), tokens, False, steps,
                )  # fmt: skip

                upcoming = (
                    next_rows(frame, U, batch, 0, first, tokens), next_rows(frame, DELTA, batch, 0, first, tokens),
                    next_rows(frame, Z, batch, 0, first, tokens), next_rows(frame, Y, batch, 0, first, tokens),
                )  # fmt: skip
                for k in range(sizes.chunks):
                    a = load_tuple(rows.rates + row * sizes.chunks * chunk + k * chunk_bytes, chunk)
                    bc = packed + k * TILE * pitch
                    h = mul(a, splat(0.0))
                    for t in range(steps):
                        at = t * ROW
                        prefetch_rows(upcoming, load_int(tokens + 8 * t), t)
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

                if has_dots(options.mode, False):
                    add_scaled(y, x, dots, steps)
                    add_scaled(reverse, x, dots + 4 * TILE, steps)
                weight = load(rows.weight + batch * rows.weight_batch + row)
                weight_back = load(rows_back.weight + batch * rows.weight_batch + row)
                skip = fma(load(rows.skip + row), weight, mul(load(rows_back.skip + row), weight_back))
                for t in range(0, steps, WIDE):
                    there, back_again = load_tuple(y + t * ROW, WIDE), load_tuple(reverse + t * ROW, WIDE)
                    if options.is_weighted != 0:
                        there, back_again = mul(there, weight), mul(back_again, weight_back)
                    store_tuple(y + t * ROW, add(there, back_again))
                to = place_of_result(y, frame + Y, batch, 0, first, lanes, tokens, steps, spacing)
                finish(to, y, u_place, z_place, x, zeros, skip, False, weight, is_gated, steps)
                if to[0] == y:
                    put(frame + Y, 0, batch, 0, first, lanes, tokens, steps, y, ROW)

    return forward_pair

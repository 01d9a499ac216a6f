"""The depthwise convolution along a route: rows of tokens stream through a buffer that a window slides over, tile by
tile; in a tile, block after block of channels, so that whole rows of memory are read at once.

A token that is not there never enters the buffer, so that those beside it are neighbours. The same kernel goes
backward: once for the gradient of what SiLU was given and the sums for weight and bias, once with reversed weights.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba.frame import GRAD_Y, LANES, ROW, TILE, TILE_BYTES, U, Y
from umamba_seg.kernels.numba.tiles import (
    WIDE,
    copy,
    fetch,
    inline,
    next_rows,
    number_tokens,
    options_of,
    piece_bounds,
    put,
    rows_of,
    silu_slope,
    sizes_of,
    sum_present,
    sum_products,
    sums_of,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    fma,
    least,
    load,
    load_int,
    load_ints,
    load_tuple,
    mul,
    prefetch_rows,
    sigmoid,
    silu,
    store,
    store_int,
    store_tuple,
)


@inline
def weigh(out, rows, taps, bias, width, count):
    """The weighted sum of the `width` rows from each one on; WIDE of them side by side."""
    for i in range(0, count, WIDE):
        o = fma(load_tuple(rows + i * ROW, WIDE), load(taps), bias)
        for j in range(1, width):
            o = fma(load_tuple(rows + (i + j) * ROW, WIDE), load(taps + j * ROW), o)
        store_tuple(out + i * ROW, o)


@inline
def activate(rows, count):
    """SiLU of rows."""
    for i in range(0, count, WIDE):
        store_tuple(rows + i * ROW, silu(load_tuple(rows + i * ROW, WIDE)))


@inline
def unsilu(g, o, count):
    """From the gradient g of SiLU(o) to that of o."""
    for i in range(0, count, WIDE):
        o_rows = load_tuple(o + i * ROW, WIDE)
        s = sigmoid(o_rows)
        store_tuple(g + i * ROW, mul(load_tuple(g + i * ROW, WIDE), silu_slope(mul(o_rows, s), s)))


@inline
def add_sums(grad_taps, grad_bias, g, rows, width, count):
    """Add what the gradients g of results give to those of the weights and the bias."""
    store(grad_bias, add(load(grad_bias), sum_present(g, 0, False, count)))
    for j in range(width):
        store(grad_taps + j * ROW, add(load(grad_taps + j * ROW), sum_products(g, (rows + j * ROW, ROW), count)))


@cache
def source() -> Any:
    """The kernel. Its frame has the width for `states` and how many tokens are seen before for `chunks`."""

    def convolution(frame, item, scratch):
        """Convolve the sequences and blocks that an item names; sums go to the run that it names."""
        _groups, channels, blocks, width, before = sizes_of(frame)
        has_silu, is_backward, _is_scaled, _is_weighted = options_of(frame)
        walk, rows, sums = walk_of(frame), rows_of(frame), sums_of(frame)
        first_sequence, last_sequence, first_block, last_block, run = load_ints(item, 5)
        out, g = scratch, scratch + TILE_BYTES
        tokens = scratch + 2 * TILE_BYTES
        voxels = tokens + 8 * TILE  # of the rows in the buffer, -1 for none
        buffer = voxels + 8 * (TILE + width)
        behind, kept = width - 1 - before, width - 1
        held_of_all = buffer + (TILE + width) * ROW  # the last rows of each block, which the next tile sees
        new, results = voxels + 8 * kept, voxels + 8 * before

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // walk.pieces, sequence % walk.pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            zero(held_of_all, (last_block - first_block) * kept)
            for i in range(kept):
                store_int(voxels + 8 * i, -1)
            # what is seen behind the end is zero: those rows come when all tiles are through
            for tile in range(tiles + (behind + TILE - 1) // TILE):
                count = 0
                if tile < tiles:
                    steps = least(TILE, end - begin - tile * TILE)
                    number_tokens(tokens, frame, batch, begin + tile * TILE, steps)
                    for t in range(steps):
                        voxel = load_int(tokens + 8 * t)
                        if voxel >= 0:
                            store_int(new + 8 * count, voxel)
                            count += 1
                else:
                    count = least(TILE, behind - (tile - tiles) * TILE)
                    for i in range(count):
                        store_int(new + 8 * i, -1)
                for block in range(first_block, last_block):
                    first, held = block * LANES, held_of_all + (block - first_block) * kept * ROW
                    lanes, own_taps = least(LANES, channels - first), rows.rates + block * width * ROW
                    copy(buffer, held, ROW, kept)
                    if tile < tiles:
                        upcoming = (next_rows(frame, U, batch, 0, first, new),)
                        for t in range(count):
                            prefetch_rows(upcoming, load_int(new + 8 * t), t)
                        fetch(buffer + kept * ROW, ROW, LANES, frame + U, batch, 0, first, lanes, new, count)
                    else:
                        zero(buffer + kept * ROW, count)
                    copy(held, buffer + count * ROW, ROW, kept)

                    # row i of the result sees the rows i to i + width - 1 of the buffer, and belongs to row i + before
                    weigh(out, buffer, own_taps, load(rows.bias + block * ROW), width, count)
                    if is_backward != 0:
                        fetch(g, ROW, LANES, frame + GRAD_Y, batch, 0, first, lanes, results, count)
                        if has_silu != 0:
                            unsilu(g, out, count)
                        place = run * blocks + block
                        grad_taps, grad_bias = sums.grad_rates + place * width * ROW, sums.grad_bias + place * ROW
                        add_sums(grad_taps, grad_bias, g, buffer, width, count)
                        put(frame + Y, 0, batch, 0, first, lanes, results, count, g, ROW)
                    else:
                        if has_silu != 0:
                            activate(out, count)
                        put(frame + Y, 0, batch, 0, first, lanes, results, count, out, ROW)
                for i in range(kept):
                    store_int(voxels + 8 * i, load_int(voxels + 8 * (count + i)))

    return convolution

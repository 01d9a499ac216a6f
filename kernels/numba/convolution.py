"""The depthwise convolution along a route: rows of tokens stream through a buffer that a window slides over.

A token that is not there never enters the buffer, so that those beside it are neighbours. The same kernel goes
backward: once for the gradient of what SiLU was given and the sums for weight and bias, once with reversed weights.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba.frame import LANES, ROW
from umamba_seg.kernels.numba.tiles import TILE, TILE_BYTES, fetch, number_tokens, piece_bounds, put, zero
from umamba_seg.kernels.numba.words import (
    add,
    fma,
    least,
    load,
    load_int,
    load_ints,
    mul,
    sigmoid,
    splat,
    store,
    store_int,
)

U, Y, GRAD_Y = (fields.place(name) for name in ("u", "y", "grad_y"))
SIZES, ROWS, PIECES, SUMS = (fields.place(name) for name in ("groups", "dt_scale", "pieces", "grad_rates"))


@cache
def convolution_source() -> Any:
    """The kernel. Its frame has the width for `states` and how many tokens are seen before for `chunks`."""

    def convolution(frame, item, scratch):
        """Convolve the sequences and blocks that an item names; sums go to the run that it names."""
        _groups, channels, blocks, width, before, has_silu, is_backward = load_ints(frame + SIZES, 7)
        pieces, _table, _table_batch, _slots, ahead = load_ints(frame + PIECES, 5)
        _scale, _unscale, taps, _inverse, biases, _skips, _weights, _weight_batch = load_ints(frame + ROWS, 8)
        grad_taps, grad_biases = load_ints(frame + SUMS, 2)
        first_sequence, last_sequence, first_block, last_block, run = load_ints(item, 5)
        out, g = scratch, scratch + TILE_BYTES
        tokens = scratch + 2 * TILE_BYTES
        voxels = tokens + 8 * TILE  # of the rows in the buffer, -1 for none
        buffer = voxels + 8 * (TILE + width)
        behind, kept = width - 1 - before, width - 1
        one, minus = splat(1.0), splat(-1.0)

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // pieces, sequence % pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            for block in range(first_block, last_block):
                first, row = block * LANES, block * ROW
                lanes, bias = least(LANES, channels - first), load(biases + row)
                zero(buffer, kept)
                for i in range(kept):
                    store_int(voxels + 8 * i, -1)
                # what is seen behind the end is zero: those rows come when all tiles are through
                rounds = tiles + (behind + TILE - 1) // TILE
                for tile in range(rounds):
                    count, new = 0, voxels + 8 * kept
                    if tile < tiles:
                        steps = least(TILE, end - begin - tile * TILE)
                        number_tokens(tokens, frame, batch, begin + tile * TILE, steps)
                        for t in range(steps):
                            voxel = load_int(tokens + 8 * t)
                            if voxel >= 0:
                                store_int(new + 8 * count, voxel)
                                count += 1
                        fetch(buffer + kept * ROW, ROW, LANES, frame + U, batch, 0, first, lanes, new, count, ahead)
                    else:
                        count = least(TILE, behind - (tile - tiles) * TILE)
                        zero(buffer + kept * ROW, count)
                        for i in range(count):
                            store_int(new + 8 * i, -1)

                    # row i of the result sees the rows i to i + width - 1 of the buffer, and belongs to row i + before
                    results = voxels + 8 * before
                    if is_backward != 0:
                        fetch(g, ROW, LANES, frame + GRAD_Y, batch, 0, first, lanes, results, count, 0)
                    for i in range(count):
                        o = bias
                        for j in range(width):
                            o = fma(load(buffer + (i + j) * ROW), load(taps + (block * width + j) * ROW), o)
                        if has_silu != 0:
                            s = sigmoid(o)
                            o = mul(o, s)
                            if is_backward != 0:  # silu' = s + o * s * (1 - s)
                                o = mul(load(g + i * ROW), fma(o, fma(s, minus, one), s))
                        elif is_backward != 0:
                            o = load(g + i * ROW)
                        store(out + i * ROW, o)
                    if is_backward != 0:
                        place = run * blocks + block
                        total = splat(0.0)
                        for i in range(count):
                            total = add(total, load(out + i * ROW))
                        store(grad_biases + place * ROW, add(load(grad_biases + place * ROW), total))
                        for j in range(width):
                            total = splat(0.0)
                            for i in range(count):
                                total = fma(load(out + i * ROW), load(buffer + (i + j) * ROW), total)
                            at = grad_taps + (place * width + j) * ROW
                            store(at, add(load(at), total))
                    put(frame + Y, 0, batch, 0, first, lanes, results, count, out, ROW)
                    for i in range(kept):
                        store(buffer + i * ROW, load(buffer + (count + i) * ROW))
                        store_int(voxels + 8 * i, load_int(voxels + 8 * (count + i)))

    return convolution

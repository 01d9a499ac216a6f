"""What the kernels of the scan share: B and C of a tile, and the states of a block of channels, chunk by chunk.

Rows of states in scratch memory are [chunk][state][lane], those in the memory of tensors [state][channel]. A function
is told how many states a chunk has, the first chunk that it is for, and the one behind the last.
"""

from typing import NamedTuple

from umamba_seg.kernels.numba.frame import DB, DC, LANES, OWN, ROW, TILE, B, C
from umamba_seg.kernels.numba.tiles import dot_rows, fetch, inline, put, zero
from umamba_seg.kernels.numba.words import least, load_state, load_tuple, store_state, store_tuple


class Block(NamedTuple):
    """A block of channels: its group, its first channel there, and how many lanes it has.

    `row` is where its rows lie behind those of the first block, `channel` where its first channel lies in a row of all.
    """

    group: int
    first: int
    lanes: int
    row: int
    channel: int


@inline
def block_of(sizes, group, number):
    """A block of a group."""
    first = number * LANES
    row, channel = (group * sizes.blocks + number) * ROW, 4 * (group * sizes.channels + first)
    return Block(group, first, least(LANES, sizes.channels - first), row, channel)


@inline
def has_dots(mode, is_exact):
    """Whether what a token reads of its own input is added at once for all states: C * B, a number for all channels."""
    return mode != OWN and not is_exact


@inline
def fetch_coefficients(packed, chunk, first, last, sizes, frame, batch, group, tokens, steps):
    """B and C of a tile: [chunk][token], of each token as many of B as a chunk has states, then of C."""
    pitch = 8 * chunk
    for k in range(first, last):
        n0 = k * chunk
        n, to = least(chunk, sizes.states - n0), packed + k * TILE * pitch
        fetch(to, pitch, chunk, frame + B, batch, group, n0, n, tokens, steps)
        fetch(to + 4 * chunk, pitch, chunk, frame + C, batch, group, n0, n, tokens, steps)


@inline
def fetch_dots(s, chunk, sizes, frame, batch, group, steps):
    """C * B of each token of a tile; B and C stay there."""
    fetch_coefficients(s.packed, chunk, 0, sizes.chunks, sizes, frame, batch, group, s.tokens, steps)
    dot_rows(s.dots, s.products, s.packed, 8 * chunk, chunk, sizes.chunks, steps)


@inline
def put_coefficients(packed, chunk, first, last, sizes, frame, offsets, batch, group, tokens, steps):
    """dB and dC of a tile to where they belong, so many bytes behind those of the frame."""
    pitch = 8 * chunk
    for k in range(first, last):
        n0 = k * chunk
        n, source = least(chunk, sizes.states - n0), packed + k * TILE * pitch
        put(frame + DB, offsets[0], batch, group, n0, n, tokens, steps, source, pitch)
        put(frame + DC, offsets[1], batch, group, n0, n, tokens, steps, source + 4 * chunk, pitch)


@inline
def states_at(memory, sizes, number):
    """Where the states of a sequence or of a checkpoint are, in an array of them; 0 where there is no array."""
    if memory == 0:
        return 0
    return memory + 4 * number * sizes.states * sizes.groups * sizes.channels


@inline
def load_states(rows, source, chunk, first, last, sizes, block):
    """The states of a block from memory; zeros where there is none."""
    wide = 4 * sizes.groups * sizes.channels
    for k in range(first, last):
        n0 = k * chunk
        to, at = rows + n0 * ROW, source + n0 * wide + block.channel
        if source == 0:
            zero(to, chunk)
        else:
            store_tuple(to, load_state(at, wide, block.lanes, sizes.states - n0, chunk))


@inline
def store_states(target, rows, chunk, first, last, sizes, block):
    """The states of a block to memory."""
    wide = 4 * sizes.groups * sizes.channels
    for k in range(first, last):
        n0 = k * chunk
        at, h = target + n0 * wide + block.channel, load_tuple(rows + n0 * ROW, chunk)
        store_state(at, wide, block.lanes, sizes.states - n0, h)

"""Where things lie in the scratch memory of a kernel: functions of its address, which are compiled into the kernels.

Called with 0, the last number that they give is how many bytes there are. Tiles are [token][lane] of a block.
"""

from typing import NamedTuple

from umamba_seg.kernels.numba.frame import ROW, TILE, TILE_BYTES

CHUNKS = (16, 8, 4)  # states
SHARE = 4  # states; a sum over states adds up those of fours first, and then two and two of these sums
AHEAD, BEHIND = 2, 3  # rounds between the preparation of a tile and its recurrence, and then until it is finished
SLOTS = 8  # tiles that a ring holds, more than there are rounds between
PROGRESS = 128  # bytes for the progress of a member: no line that another one writes, nor the one fetched along with it
PAGE = 4096  # bytes; processors take a load for that of a store not yet done if the addresses differ by whole pages


class ForwardScratch(NamedTuple):
    """Tiles; what all blocks share of a tile, with B and C as [chunk][token]; what blocks keep from tile to tile."""

    dt: int
    x: int
    u: int
    y: int
    z: int
    zeros: int
    products: int
    tokens: int
    dots: int
    packed: int
    states: int
    carries: int
    end: int


def forward_scratch(at: int, chunk: int, chunks: int, blocks: int) -> ForwardScratch:
    """Of an item of so many blocks, with so many chunks of states."""
    tiles = (at, at + TILE_BYTES, at + 2 * TILE_BYTES, at + 3 * TILE_BYTES, at + 4 * TILE_BYTES)
    tokens = at + 7 * TILE_BYTES
    dots = tokens + 8 * TILE
    packed = dots + 4 * TILE
    states = packed + chunks * TILE * 8 * chunk
    carries = states + blocks * chunks * chunk * ROW
    shared = (at + 5 * TILE_BYTES, at + 6 * TILE_BYTES, tokens, dots, packed)
    return ForwardScratch(*tiles, *shared, states, carries, carries + blocks * ROW)


def ring_head(shares: int) -> int:
    """Bytes of what members have done, [member], at most as many as there are shares, in a ring; see `team`."""
    return -(-shares * PROGRESS // PAGE) * PAGE


class ForwardSlot(NamedTuple):
    """A tile in a ring: what is prepared of it, [token][lane] each, then what C reads, [share][token][lane]."""

    dt: int
    x: int
    y: int
    end: int


def forward_slot(at: int, shares: int) -> ForwardSlot:
    """With so many shares of the sum."""
    y = at + 2 * TILE_BYTES
    return ForwardSlot(at, at + TILE_BYTES, y, y + shares * TILE_BYTES)


class BackwardSlot(NamedTuple):
    """A tile in a ring: what is prepared of it, [token][lane] each, then the sums, [share][token][lane] each."""

    dt: int
    x: int
    inner: int
    y: int
    gx: int
    gdt: int
    end: int


def backward_slot(at: int, shares: int) -> BackwardSlot:
    """With so many shares of each sum."""
    y, of_a_sum = at + 3 * TILE_BYTES, shares * TILE_BYTES
    prepared, sums = (at, at + TILE_BYTES, at + 2 * TILE_BYTES), (y, y + of_a_sum, y + 2 * of_a_sum)
    return BackwardSlot(*prepared, *sums, y + 3 * of_a_sum)


class PairScratch(NamedTuple):
    """Tiles; what all blocks share of a tile, B and C as [direction][chunk][token]; the decays of a chunk."""

    dt: int
    x: int
    u: int
    y: int
    z: int
    zeros: int
    reverse: int
    tokens: int
    dots: int
    packed: int
    decays: int
    end: int


def pair_scratch(at: int, chunk: int, chunks: int) -> PairScratch:
    """With so many chunks of states."""
    tiles = (at, at + TILE_BYTES, at + 2 * TILE_BYTES, at + 3 * TILE_BYTES, at + 4 * TILE_BYTES)
    tokens = at + 7 * TILE_BYTES
    dots = tokens + 8 * TILE
    packed = dots + 2 * 4 * TILE
    decays = packed + 2 * chunks * TILE * 8 * chunk
    shared = (at + 5 * TILE_BYTES, at + 6 * TILE_BYTES, tokens, dots, packed)
    return PairScratch(*tiles, *shared, decays, decays + TILE * chunk * ROW)


class BackwardScratch(NamedTuple):
    """Tiles; what all blocks share of a tile, with B and C of its tokens and of the one before; a chunk's recurrence.

    Then dB and dC of each part, and what blocks keep to the next tile: gradients of states, and of outputs behind it.
    """

    dt: int
    x: int
    u: int
    y: int
    z: int
    g: int
    inner: int
    gx: int
    gdt: int
    products: int
    tokens: int
    tokens_before: int
    dots: int
    factors: int
    shifted: int
    packed_before: int
    packed: int
    before: int
    decays: int
    kept: int
    grads: int
    carries: int
    shifts: int
    end: int


def backward_scratch(at: int, chunk: int, chunks: int, parts: int, blocks: int) -> BackwardScratch:
    """Of an item of so many parts and blocks, with so many chunks of states."""
    tiles = (at, at + TILE_BYTES, at + 2 * TILE_BYTES, at + 3 * TILE_BYTES, at + 4 * TILE_BYTES)
    more_tiles = (at + 5 * TILE_BYTES, at + 6 * TILE_BYTES, at + 7 * TILE_BYTES, at + 8 * TILE_BYTES)
    pitch, chunk_bytes = 8 * chunk, chunk * ROW
    tokens = at + 10 * TILE_BYTES
    tokens_before = tokens + 8 * TILE
    dots = tokens_before + ROW
    factors = dots + 4 * TILE
    shifted = factors + 4 * TILE
    packed_before = shifted + ROW
    packed = packed_before + chunks * pitch
    before = packed + chunks * TILE * pitch
    decays = before + chunks * chunk_bytes
    kept = decays + TILE * chunk_bytes
    grads = kept + TILE * chunk_bytes
    carries = grads + parts * chunks * TILE * pitch
    shifts = carries + blocks * chunks * chunk_bytes
    shared = (at + 9 * TILE_BYTES, tokens, tokens_before, dots, factors, shifted, packed_before, packed)
    kept_ones = (before, decays, kept, grads, carries, shifts)
    return BackwardScratch(*tiles, *more_tiles, *shared, *kept_ones, shifts + blocks * ROW)

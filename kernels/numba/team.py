"""How several threads do a block of channels: each has a share of the states, and they take turns with all else.

What C reads of the states is a sum over them, and so is what goes back to a token. A member of a team leaves its share
of such sums in a ring of memory. All else is done once, by the member that owns the tile. In round r of a member,

    if it owns tile r: wait_for_slot(...), and what comes before the recurrence, into the ring;
    of tile r - AHEAD: wait_for_tile(...), and the recurrence of its states, from the ring and into it;
    if it owns tile r - AHEAD - BEHIND: wait_for_shares(...), add_shares(...), and what comes after the recurrence;
    end_round(...)

Members wait only for rounds before the one they are in, so all of them end, as long as all members run; and the rounds
between give them time. Sums go in the order in which one thread would add: the bits are the same.
"""

from collections.abc import Callable
from typing import Any

from numba import types

from umamba_seg.kernels.numba.frame import ROW, TILE_BYTES
from umamba_seg.kernels.numba.scratch import AHEAD, BEHIND, PROGRESS, SLOTS, ring_head
from umamba_seg.kernels.numba.tiles import called_with, copy, inline
from umamba_seg.kernels.numba.words import add, give_way, load, load_rows, look, named, publish, store, total

head_of = called_with(1, types.int64)(ring_head)


@inline
def owns(tile, member, members):
    """Whether a member prepares and finishes a tile."""
    return tile >= 0 and tile % members == member


def slots_in_ring(kind: type, layout: Callable[[int, int], Any]) -> Any:
    """The function that tells where a tile is in a ring, for slots of this kind: see `scratch`."""
    slot_at = called_with(2, named(kind))(layout)

    @inline
    def slot_of(ring, shares, tile):
        return slot_at(ring + head_of(shares) + tile % SLOTS * slot_at(0, shares).end, shares)

    return slot_of


@inline
def hand_out(slot, ends, u, u_pitch, is_exact, steps):
    """What all recurrences read, into a slot: dt, and x or, where the input enters exactly, u."""
    copy(slot.dt, ends.dt, ROW, steps)
    if is_exact:
        copy(slot.x, u, u_pitch, steps)
    else:
        copy(slot.x, ends.x, ROW, steps)


@called_with(2)
def wait_for(progress, rounds):
    """Until a member has done so many rounds."""
    while look(progress) < rounds:
        give_way()


@inline
def wait_for_slot(ring, members, tile):
    """Until the tile is finished that had the slot before."""
    before = tile - SLOTS
    if before >= 0:
        wait_for(ring + before % members * PROGRESS, before + AHEAD + BEHIND + 1)


@inline
def wait_for_tile(ring, members, tile):
    """Until a tile is prepared."""
    wait_for(ring + tile % members * PROGRESS, tile + 1)


@inline
def wait_for_shares(ring, members, tile):
    """Until all have done the recurrence of a tile."""
    for member in range(members):
        wait_for(ring + member * PROGRESS, tile + AHEAD + 1)


@inline
def end_round(ring, member, number):
    """Tell the others."""
    publish(ring + member * PROGRESS, number + 1)


@inline
def add_shares(to, rows, shares, of_a_chunk, steps):
    """A tile of the sum over all shares, added up as the chunks are that one thread does, of so many shares each."""
    for first in range(0, shares, of_a_chunk):
        for t in range(steps):
            at = t * ROW
            row = total(load_rows(rows + first * TILE_BYTES + at, TILE_BYTES, of_a_chunk))
            if first > 0:
                row = add(row, load(to + at))
            store(to + at, row)

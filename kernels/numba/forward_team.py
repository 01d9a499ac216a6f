"""The scan of a block by a team, forward: see `forward` for what is computed, and `team` for how."""

from functools import cache
from typing import Any, NamedTuple

from umamba_seg.kernels.numba.blocks import (
    block_of,
    fetch_coefficients,
    fetch_dots,
    has_dots,
    load_states,
    states_at,
    store_states,
)
from umamba_seg.kernels.numba.forward import ends_of_a_tile, laid_out
from umamba_seg.kernels.numba.frame import DELTA, OWN, ROW, TILE, TILE_BYTES, U, Y, Z
from umamba_seg.kernels.numba.scratch import AHEAD, BEHIND, SHARE, ForwardSlot, forward_slot
from umamba_seg.kernels.numba.team import (
    add_shares,
    end_round,
    hand_out,
    owns,
    slots_in_ring,
    wait_for_shares,
    wait_for_slot,
    wait_for_tile,
)
from umamba_seg.kernels.numba.tiles import (
    called_with,
    copy,
    number_tokens,
    options_of,
    piece_bounds,
    place,
    rows_ahead,
    rows_of,
    sizes_of,
    states_of,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    advance,
    advance_exactly,
    least,
    load,
    load_int,
    load_ints,
    load_tuple,
    prefetch_rows,
    splat,
    store,
    store_tuple,
)


class Member(NamedTuple):
    """A member of the team of a block of a sequence: which one of how many, its shares of the states, and the ring."""

    sequence: int
    group: int
    number: int
    member: int
    members: int
    first_share: int
    last_share: int
    ring: int


slot_of = slots_in_ring(ForwardSlot, forward_slot)


@cache
def source(chunk: int, is_exact: bool) -> Any:
    """The kernel of a member, where one thread does chunks of so many states."""
    pitch = 8 * SHARE  # bytes of B and C of one token, packed
    share_bytes = SHARE * ROW
    of_a_chunk = chunk // SHARE
    step = advance_exactly if is_exact else advance
    enter, leave = ends_of_a_tile(chunk, is_exact)

    @called_with(6)
    def cross(frame, scratch, batch, item, tile, steps):
        """The recurrence of the member's states, and what C reads of them."""
        sizes, rows, me = sizes_of(frame), rows_of(frame), Member(*load_ints(item, 8))
        s, block, own = laid_out(scratch, chunk, sizes.chunks, 1), block_of(sizes, me.group, me.number), splat(0.0)
        if options_of(frame).mode != OWN:
            own = splat(1.0)
        slot = slot_of(me.ring, sizes.chunks * of_a_chunk, tile)
        group, first, tokens = me.group, block.first, s.tokens
        prepares, finishes = owns(tile + AHEAD + 1, me.member, me.members), owns(tile - BEHIND, me.member, me.members)
        to_prepare = (
            rows_ahead(frame, U, batch, group, first, tokens, AHEAD + 1),
            rows_ahead(frame, DELTA, batch, group, first, tokens, AHEAD + 1),
        )
        to_finish = (
            rows_ahead(frame, Z, batch, group, first, tokens, -BEHIND),
            rows_ahead(frame, Y, batch, group, first, tokens, -BEHIND),
        )
        for k in range(me.first_share, me.last_share):
            states, bc = s.states + k * share_bytes, s.packed + k * TILE * pitch
            at = block.row * sizes.chunks * chunk + k * share_bytes
            h, a = load_tuple(states, SHARE), load_tuple(rows.rates + at, SHARE)
            inverse = load_tuple(rows.inverse_rates + at, SHARE)
            for t in range(steps):
                at = t * ROW
                if k == me.first_share:
                    if prepares:
                        prefetch_rows(to_prepare, load_int(tokens + 8 * t), t)
                    if finishes:
                        prefetch_rows(to_finish, load_int(tokens + 8 * t), t)
                dt, x = load(slot.dt + at), load(slot.x + at)
                h, read = step(h, a, inverse, dt, x, x, bc + t * pitch, own)
                store(slot.y + k * TILE_BYTES + at, read)
            store_tuple(states, h)

    def forward_team(frame, item, scratch):
        """Do what a member does; no output may be shifted, and no table may name a voxel twice."""
        sizes, states, mode = sizes_of(frame), states_of(frame), options_of(frame).mode
        walk = walk_of(frame)
        sequence, group, number, member, members, first_share, last_share, ring = load_ints(item, 8)
        chunks, shares = sizes.chunks, sizes.chunks * of_a_chunk
        s, block = laid_out(scratch, chunk, chunks, 1), block_of(sizes, group, number)
        ends = laid_out(s.end, chunk, chunks, 1)  # of tiles: what is prepared and finished
        zero(ends.zeros, TILE)
        batch, piece = sequence // walk.pieces, sequence % walk.pieces
        begin, end = piece_bounds(frame, piece)
        tiles = (end - begin + TILE - 1) // TILE
        load_states(s.states, states_at(states.initial, sizes, sequence), SHARE, first_share, last_share, sizes, block)

        for turn in range(tiles + AHEAD + BEHIND):
            if turn < tiles and owns(turn, member, members):
                t0 = begin + turn * TILE
                steps = least(TILE, end - t0)
                spacing = number_tokens(ends.tokens, frame, batch, t0, steps)
                u, u_by, _, _ = enter(frame, s.end, batch, group, number, steps, spacing, 0)
                wait_for_slot(ring, members, turn)
                hand_out(slot_of(ring, shares, turn), ends, u, u_by, is_exact, steps)

            tile = turn - AHEAD
            if tile >= 0 and tile < tiles:
                t0 = begin + tile * TILE
                steps = least(TILE, end - t0)
                number_tokens(s.tokens, frame, batch, t0, steps)
                kept = states_at(states.checkpoints, sizes, batch * walk.slots + t0 // TILE)
                if tile > 0 and kept != 0:
                    store_states(kept, s.states, SHARE, first_share, last_share, sizes, block)
                fetch_coefficients(
                    s.packed, SHARE, first_share, last_share, sizes, frame, batch, group, s.tokens, steps
                )
                wait_for_tile(ring, members, tile)
                cross(frame, scratch, batch, item, tile, steps)

            tile = turn - AHEAD - BEHIND
            if owns(tile, member, members):
                t0, tokens = begin + tile * TILE, ends.tokens
                steps = least(TILE, end - t0)
                spacing = number_tokens(tokens, frame, batch, t0, steps)
                if has_dots(mode, is_exact):
                    fetch_dots(ends, chunk, sizes, frame, batch, group, steps)
                u, u_by = place(ends.u, frame + U, batch, group, block.first, block.lanes, tokens, steps, spacing)
                z, z_by = u, u_by
                if load_int(frame + Z) != 0:
                    z, z_by = place(ends.z, frame + Z, batch, group, block.first, block.lanes, tokens, steps, spacing)
                wait_for_shares(ring, members, tile)
                slot = slot_of(ring, shares, tile)
                copy(ends.x, slot.x, ROW, steps)
                add_shares(ends.y, slot.y, shares, of_a_chunk, steps)
                leave(frame, s.end, batch, group, number, ends.carries, steps, spacing, u, u_by, z, z_by)
            end_round(ring, member, turn)

        kept = states_at(states.last, sizes, sequence)
        if kept != 0:
            store_states(kept, s.states, SHARE, first_share, last_share, sizes, block)

    return forward_team

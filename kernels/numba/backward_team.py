"""The scan of blocks by a team, backward: see `backward` for what is computed, and `team` for how.

A team has one part of the blocks, for one sequence; what is a tile there is a block's tile here, numbered tile by tile
from the last one, and in each block by block. Each member has dB and dC of its states to itself. What tiles give to the
gradients of D, weights and bias is kept, and added up in order at the end.
"""

from functools import cache
from typing import Any, NamedTuple

from umamba_seg.kernels.numba.backward import add_own_products, add_products, add_to, all_rows, ends_of_a_tile, laid_out
from umamba_seg.kernels.numba.blocks import (
    block_of,
    fetch_coefficients,
    fetch_dots,
    has_dots,
    load_states,
    put_coefficients,
    states_at,
    store_states,
)
from umamba_seg.kernels.numba.frame import DDELTA, DELTA, DU, DZ, GRAD_Y, OWN, ROW, TILE, TILE_BYTES, U, Z
from umamba_seg.kernels.numba.scratch import AHEAD, BEHIND, SHARE, BackwardSlot, backward_slot
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
    sums_of,
    walk_of,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance_exactly_saving,
    advance_saving,
    least,
    load,
    load_int,
    load_ints,
    load_tuple,
    mul,
    prefetch_rows,
    retreat,
    retreat_exactly,
    splat,
    store,
    store_tuple,
)


class Member(NamedTuple):
    """A member of the team of a sequence and some blocks: which one of how many, its shares of the states, the ring.

    Of the team: the run that its sums belong to, how many bytes behind dB and dC of the frame its own lie, and where
    what tiles give to D, weights and bias is kept, [tile][of D, weights, bias][lane].
    """

    sequence: int
    group: int
    first_block: int
    last_block: int
    run: int
    to_db: int
    to_dc: int
    totals: int
    member: int
    members: int
    first_share: int
    last_share: int
    ring: int


slot_of = slots_in_ring(BackwardSlot, backward_slot)


@cache
def source(chunk: int, is_exact: bool) -> Any:
    """The kernel of a member, where one thread does chunks of so many states."""
    pitch = 8 * SHARE  # bytes of B and C of one token, packed
    tile_pitch = TILE * pitch
    share_bytes = SHARE * ROW
    of_a_chunk = chunk // SHARE
    step = advance_exactly_saving if is_exact else advance_saving
    step_back = retreat_exactly if is_exact else retreat
    enter, leave = ends_of_a_tile(chunk, is_exact)

    @called_with(8)
    def cross(frame, scratch, batch, item, block_number, tile, steps, carried):
        """The recurrence of the member's states, forward once more from those in `before`, and back."""
        sizes, rows, sums = sizes_of(frame), rows_of(frame), sums_of(frame)
        me = Member(*load_ints(item, 13))
        group, block, own = me.group, block_of(sizes, me.group, block_number), splat(0.0)
        if options_of(frame).mode != OWN:
            own = splat(1.0)
        s, slot = laid_out(scratch, chunk, sizes.chunks, 1, 0), slot_of(me.ring, sizes.chunks * of_a_chunk, tile)
        prepares, finishes = owns(tile + AHEAD + 1, me.member, me.members), owns(tile - BEHIND, me.member, me.members)
        first, tokens = block.first, s.tokens
        to_prepare = (
            rows_ahead(frame, U, batch, group, first, tokens, AHEAD + 1),
            rows_ahead(frame, DELTA, batch, group, first, tokens, AHEAD + 1),
            rows_ahead(frame, Z, batch, group, first, tokens, AHEAD + 1),
            rows_ahead(frame, GRAD_Y, batch, group, first, tokens, AHEAD + 1),
        )
        to_finish = (
            rows_ahead(frame, DU, batch, group, first, tokens, -BEHIND),
            rows_ahead(frame, DDELTA, batch, group, first, tokens, -BEHIND),
            rows_ahead(frame, DZ, batch, group, first, tokens, -BEHIND),
        )
        for k in range(me.first_share, me.last_share):
            of_share, bc = k * share_bytes, s.packed + k * tile_pitch
            of_rates = block.row * sizes.chunks * chunk + of_share
            a, inverse = load_tuple(rows.rates + of_rates, SHARE), load_tuple(rows.inverse_rates + of_rates, SHARE)
            h = load_tuple(s.before + of_share, SHARE)
            for t in range(steps):
                at, inner_at = t * ROW, t * share_bytes
                if prepares and k == me.first_share:
                    prefetch_rows(to_prepare, load_int(tokens + 8 * t), t)
                dt, x = load(slot.dt + at), load(slot.x + at)
                h, read = step(h, a, inverse, dt, x, x, bc + t * pitch, own, s.decays + inner_at, s.kept + inner_at)
                store(slot.y + k * TILE_BYTES + at, read)

            carry, grad_a = load_tuple(carried + of_share, SHARE), mul(a, splat(0.0))
            for from_end in range(steps):
                t = steps - 1 - from_end
                at, inner_at = t * ROW, t * share_bytes
                if finishes and k == me.first_share:
                    prefetch_rows(to_finish, load_int(tokens + 8 * t), t)
                inner, dt, x = load(slot.inner + at), load(slot.dt + at), load(slot.x + at)
                carry, grad_a, for_x, for_dt = step_back(
                    carry, grad_a, a, inverse, inner, dt, x, x, bc + t * pitch, own, s.decays + inner_at,
                    s.kept + inner_at, s.grads + k * tile_pitch + t * pitch,
                )  # fmt: skip
                store(slot.gx + k * TILE_BYTES + at, for_x)
                store(slot.gdt + k * TILE_BYTES + at, for_dt)
            store_tuple(carried + of_share, carry)
            grad_rates = sums.grad_rates + me.run * all_rows(sizes) * sizes.chunks * chunk + of_rates
            store_tuple(grad_rates, add(load_tuple(grad_rates, SHARE), grad_a))

    def backward_team(frame, item, scratch):
        """Do what a member does; no output may be shifted, and no table may name a voxel twice."""
        sizes, states, sums, mode = sizes_of(frame), states_of(frame), sums_of(frame), options_of(frame).mode
        walk, told = walk_of(frame), item
        me = Member(*load_ints(item, 13))
        sequence, group, member, members, ring = me.sequence, me.group, me.member, me.members, me.ring
        first_share, last_share, chunks = me.first_share, me.last_share, sizes.chunks
        shares, blocks, block_bytes = chunks * of_a_chunk, me.last_block - me.first_block, chunks * chunk * ROW
        s = laid_out(scratch, chunk, chunks, 1, blocks)
        ends = laid_out(s.end, chunk, chunks, 1, 0)  # of tiles: what is prepared and finished
        batch, piece = sequence // walk.pieces, sequence % walk.pieces
        begin, end = piece_bounds(frame, piece)
        last_tile = (end - begin + TILE - 1) // TILE - 1
        tiles = (last_tile + 1) * blocks
        grad_last = states_at(states.grad_last, sizes, sequence)
        for i in range(blocks):
            block, rows = block_of(sizes, group, me.first_block + i), s.carries + i * block_bytes
            load_states(rows, grad_last, SHARE, first_share, last_share, sizes, block)

        for turn in range(tiles + AHEAD + BEHIND):
            if turn < tiles and owns(turn, member, members):
                t0, number = begin + (last_tile - turn // blocks) * TILE, me.first_block + turn % blocks
                steps = least(TILE, end - t0)
                spacing = number_tokens(ends.tokens, frame, batch, t0, steps)
                totals = me.totals + turn * 3 * ROW
                zero(totals, 3)
                u, u_by, _, _, _, _ = enter(frame, s.end, batch, group, number, totals, steps, spacing)
                wait_for_slot(ring, members, turn)
                slot = slot_of(ring, shares, turn)
                hand_out(slot, ends, u, u_by, is_exact, steps)
                copy(slot.inner, ends.inner, ROW, steps)

            tile = turn - AHEAD
            if tile >= 0 and tile < tiles:
                t0, i = begin + (last_tile - tile // blocks) * TILE, tile % blocks
                steps, carried, number = least(TILE, end - t0), s.carries + i * block_bytes, me.first_block + i
                block = block_of(sizes, group, number)
                before = states_at(states.initial, sizes, sequence)  # where the states before this tile are
                if t0 > begin:
                    before = states_at(states.checkpoints, sizes, batch * walk.slots + t0 // TILE)
                if i == 0:
                    number_tokens(s.tokens, frame, batch, t0, steps)
                    fetch_coefficients(
                        s.packed, SHARE, first_share, last_share, sizes, frame, batch, group, s.tokens, steps
                    )
                    zero(s.grads, chunks * TILE * 8 * chunk // ROW)
                    zero(s.products, TILE)
                load_states(s.before, before, SHARE, first_share, last_share, sizes, block)
                wait_for_tile(ring, members, tile)
                slot = slot_of(ring, shares, tile)
                cross(frame, scratch, batch, told, number, tile, steps, carried)
                if has_dots(mode, is_exact):
                    add_products(s.products, slot.inner, slot.x, steps)
                if i == blocks - 1:
                    if has_dots(mode, is_exact):
                        add_own_products(s, s.grads, SHARE, first_share, last_share, steps)
                    put_coefficients(
                        s.grads, SHARE, first_share, last_share, sizes, frame, (me.to_db, me.to_dc), batch, group,
                        s.tokens, steps,
                    )  # fmt: skip

            tile = turn - AHEAD - BEHIND
            if owns(tile, member, members):
                t0, number = begin + (last_tile - tile // blocks) * TILE, me.first_block + tile % blocks
                steps, block, tokens = least(TILE, end - t0), block_of(sizes, group, number), ends.tokens
                spacing = number_tokens(tokens, frame, batch, t0, steps)
                if has_dots(mode, is_exact):
                    fetch_dots(ends, chunk, sizes, frame, batch, group, steps)
                u, u_by = place(ends.u, frame + U, batch, group, block.first, block.lanes, tokens, steps, spacing)
                g, g_by = place(ends.g, frame + GRAD_Y, batch, group, block.first, block.lanes, tokens, steps, spacing)
                z, z_by = u, u_by
                if load_int(frame + Z) != 0:
                    z, z_by = place(ends.z, frame + Z, batch, group, block.first, block.lanes, tokens, steps, spacing)
                wait_for_shares(ring, members, tile)
                slot = slot_of(ring, shares, tile)
                copy(ends.dt, slot.dt, ROW, steps)
                copy(ends.x, slot.x, ROW, steps)
                copy(ends.inner, slot.inner, ROW, steps)
                add_shares(ends.y, slot.y, shares, of_a_chunk, steps)
                add_shares(ends.gx, slot.gx, shares, of_a_chunk, steps)
                add_shares(ends.gdt, slot.gdt, shares, of_a_chunk, steps)
                totals = me.totals + tile * 3 * ROW
                leave(
                    frame, s.end, batch, group, number, totals + ROW, totals + 2 * ROW, steps, spacing, u, u_by, g,
                    g_by, z, z_by,
                )  # fmt: skip
            end_round(ring, member, turn)

        grad_initial = states_at(states.grad_initial, sizes, sequence)
        if grad_initial != 0:
            for i in range(blocks):
                block, rows = block_of(sizes, group, me.first_block + i), s.carries + i * block_bytes
                store_states(grad_initial, rows, SHARE, first_share, last_share, sizes, block)
        if member == 0:
            wait_for_shares(ring, members, tiles + BEHIND - 1)
            for tile in range(tiles):
                block, totals = block_of(sizes, group, me.first_block + tile % blocks), me.totals + tile * 3 * ROW
                to = me.run * all_rows(sizes) + block.row
                add_to(sums.grad_skip + to, load(totals))
                if sums.grad_weight != 0:
                    add_to(sums.grad_weight + to, load(totals + ROW))
                add_to(sums.grad_bias + to, load(totals + 2 * ROW))

    return backward_team

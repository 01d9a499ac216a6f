"""The scan, backward: tiles in reverse order, each computed again from the states that the forward pass kept.

For each block of channels and chunk of states of a tile: the decays and what they leave of the states are computed into
scratch memory, then time is walked back, see `words.retreat`. Sums over channels are sums over the lanes of vectors.

Blocks are dealt to parts by shape alone. A part adds up its blocks' dB and dC in their order, parts are added two by
two as in a tournament, and an item of work has a whole branch of it: no sum depends on how many threads there are.
"""

from functools import cache
from typing import Any

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba.frame import LANES, OWN, ROW, SHIFT
from umamba_seg.kernels.numba.tiles import (
    TILE,
    TILE_BYTES,
    add_branches,
    add_scaled,
    dot_rows,
    fetch,
    find_before,
    finish_inner,
    finish_outer,
    number_tokens,
    piece_bounds,
    place,
    place_of_result,
    prepare,
    put,
    shift,
    shift_back,
    sum_lanes,
    sum_present,
    sum_products,
    ungate,
    zero,
)
from umamba_seg.kernels.numba.words import (
    add,
    advance_exactly_saving,
    advance_saving,
    broadcast_tuple,
    fma,
    least,
    load,
    load_first,
    load_int,
    load_ints,
    load_state,
    load_tuple,
    mul,
    read_states,
    retreat,
    retreat_exactly,
    splat,
    store,
    store_first,
    store_state,
    store_tuple,
    swap_halves,
)

U, DELTA, Z, B, C, GRAD_Y, DU, DDELTA, DZ, DB, DC = (
    fields.place(name)
    for name in ("u", "delta", "z", "B", "C", "grad_y", "du", "ddelta", "dz", "dB", "dC")
)  # fmt: skip
SIZES, ROWS, STATES, SUMS = (fields.place(name) for name in ("groups", "dt_scale", "initial", "grad_rates"))
PIECES = fields.place("pieces")


@cache
def backward_source(chunk: int, is_exact: bool) -> Any:
    """The kernel for chunks of so many states, at most half as many as a vector has lanes."""
    pitch = 8 * chunk  # bytes of B and C of one token, packed
    half = 4 * chunk
    chunk_bytes = chunk * ROW
    step = advance_exactly_saving if is_exact else advance_saving
    step_back = retreat_exactly if is_exact else retreat

    def backward(frame, item, scratch):
        """Walk back the sequences, groups and parts of blocks from one number to another that an item names.

        Then an item has the run that its sums belong to, the number of all parts, and how many bytes behind dB and dC
        of the frame its own lie.
        """
        dt, x, u = scratch, scratch + TILE_BYTES, scratch + 2 * TILE_BYTES
        y, z, g, inner = (
            scratch + 3 * TILE_BYTES, scratch + 4 * TILE_BYTES, scratch + 5 * TILE_BYTES, scratch + 6 * TILE_BYTES,
        )  # fmt: skip
        gx, gdt, products = scratch + 7 * TILE_BYTES, scratch + 8 * TILE_BYTES, scratch + 9 * TILE_BYTES
        tokens = scratch + 10 * TILE_BYTES
        tokens_before = tokens + 8 * TILE
        dots = tokens_before + ROW
        factors = dots + 4 * TILE
        shifted = factors + 4 * TILE
        packed_before = shifted + ROW

        groups, channels, blocks, states, chunks, softplus, mode, scaled, _weighted = load_ints(frame + SIZES, 9)
        pieces, table, _table_batch, slots, ahead = load_ints(frame + PIECES, 5)
        scale_row, unscale_row, rates, inverse_rates, biases, skips, weights, weight_batch = load_ints(frame + ROWS, 8)
        initial, _last, checkpoints, grad_initial, grad_last = load_ints(frame + STATES, 5)
        grad_rates, grad_biases, grad_skips, grad_weights = load_ints(frame + SUMS, 4)
        first_sequence, last_sequence, first_group, last_group, first_part, last_part, run, parts = load_ints(item, 8)
        to_db, to_dc = load_ints(item + 64, 2)

        packed = packed_before + (chunks + LANES) * pitch + ROW
        block_bytes = chunks * chunk_bytes
        tile_pitch = TILE * pitch
        part_bytes = chunks * tile_pitch
        grads = packed + part_bytes  # [part][chunk][token][B and C]
        decays = grads + (last_part - first_part) * part_bytes
        kept = decays + TILE * chunk_bytes
        first_block, last_block = blocks * first_part // parts, blocks * last_part // parts
        in_item = last_block - first_block
        carries = kept + TILE * chunk_bytes
        shifts = carries + (last_group - first_group) * in_item * block_bytes
        wide = 4 * groups * channels  # bytes from one state to the next where states are kept
        is_padded, is_gated = table != 0, load_int(frame + Z) != 0
        scale, unscale, own = load(scale_row), load(unscale_row), splat(0.0)
        if mode != OWN:
            own = splat(1.0)
        token_before, spacing = -1, 0

        for sequence in range(first_sequence, last_sequence):
            batch, piece = sequence // pieces, sequence % pieces
            begin, end = piece_bounds(frame, piece)
            tiles = (end - begin + TILE - 1) // TILE
            # one round more than there are tiles: the first one has no tokens and fetches what comes from behind
            for back in range(tiles + 1):
                tile = tiles - back
                t0 = begin + tile * TILE
                steps = least(TILE, end - t0)
                if back > 0:
                    spacing = number_tokens(tokens, frame, batch, t0, steps)
                    if mode == SHIFT:
                        token_before = find_before(tokens_before, frame, batch, begin, t0)
                for group in range(first_group, last_group):
                    if back > 0:
                        for k in range(chunks):
                            n0 = k * chunk
                            n = least(chunk, states - n0)
                            if token_before >= 0:
                                to = packed_before + k * pitch
                                fetch(to + half, pitch, chunk, frame + C, batch, group, n0, n, tokens_before, 1, 0)
                            to = packed + k * tile_pitch
                            fetch(to, pitch, chunk, frame + B, batch, group, n0, n, tokens, steps, ahead)
                            fetch(to + half, pitch, chunk, frame + C, batch, group, n0, n, tokens, steps, ahead)
                        if mode != OWN and not is_exact:
                            dot_rows(dots, products, packed, pitch, chunk, chunks, steps)
                        zero(grads, (last_part - first_part) * part_bytes // ROW)
                    for part in range(first_part, last_part):
                        grads_of_part = grads + (part - first_part) * part_bytes
                        if back > 0:
                            zero(products, TILE)
                        for block in range(blocks * part // parts, blocks * (part + 1) // parts):
                            first = block * LANES
                            lanes = least(LANES, channels - first)
                            number = (group - first_group) * in_item + block - first_block
                            carry_at, shift_at = carries + number * block_bytes, shifts + number * ROW
                            row = (group * blocks + block) * ROW
                            channel = 4 * (group * channels + first)
                            if back == 0:
                                store(shift_at, splat(0.0))
                                for k in range(chunks):
                                    n0 = k * chunk
                                    if grad_last == 0:
                                        zero(carry_at + k * chunk_bytes, chunk)
                                    else:
                                        at = grad_last + (sequence * states + n0) * wide + channel
                                        given = load_state(at, wide, lanes, states - n0, chunk)
                                        store_tuple(carry_at + k * chunk_bytes, given)
                                    if tiles == 0 and grad_initial != 0:
                                        at = grad_initial + (sequence * states + n0) * wide + channel
                                        unchanged = load_tuple(carry_at + k * chunk_bytes, chunk)
                                        store_state(at, wide, lanes, states - n0, unchanged)
                                continue

                            u_place = place(u, frame + U, batch, group, first, lanes, tokens, steps, spacing, ahead)
                            delta = place(dt, frame + DELTA, batch, group, first, lanes, tokens, steps, spacing, ahead)
                            g_place = place(
                                g, frame + GRAD_Y, batch, group, first, lanes, tokens, steps, spacing, ahead
                            )
                            z_place = u_place
                            if is_gated:
                                z_place = place(z, frame + Z, batch, group, first, lanes, tokens, steps, spacing, ahead)
                            bias = load(biases + row)
                            prepare(
                                dt, x, delta, u_place, bias, softplus != 0, scaled != 0, scale, tokens, is_padded, steps
                            )
                            weight, skip = load(weights + batch * weight_batch + row), load(skips + row)
                            ungate(inner, g_place, z_place, weight, is_gated, steps)
                            sums = run * groups * blocks * ROW + row
                            skip_sum = sum_products(inner, u_place, steps)
                            store(grad_skips + sums, add(load(grad_skips + sums), skip_sum))
                            if mode == SHIFT:  # `inner` becomes the gradient of what the recurrence gives
                                shift_back(inner, shift_at, tokens, steps)
                                store(shifted, splat(0.0))

                            before = 0  # where the states before this tile are
                            if tile > 0:
                                before = checkpoints + (batch * slots + t0 // TILE) * states * wide
                            elif initial != 0:
                                before = initial + sequence * states * wide
                            for k in range(chunks):
                                n0 = k * chunk
                                a_at = row * chunks * chunk + k * chunk_bytes
                                a = load_tuple(rates + a_at, chunk)
                                h = mul(a, splat(0.0))
                                if before != 0:
                                    h = load_state(before + n0 * wide + channel, wide, lanes, states - n0, chunk)
                                bc = packed + k * tile_pitch
                                if mode == SHIFT and token_before >= 0:
                                    store(shifted, add(load(shifted), read_states(h, packed_before + k * pitch)))
                                inverse = load_tuple(inverse_rates + a_at, chunk)
                                for t in range(steps):
                                    at, inner_at = t * ROW, t * chunk_bytes
                                    h, read = step(
                                        h, a, inverse, load(dt + at), load(x + at), load(u_place[0] + t * u_place[1]),
                                        bc + t * pitch, own, decays + inner_at, kept + inner_at,
                                    )  # fmt: skip
                                    if k > 0:
                                        read = add(read, load(y + t * ROW))
                                    store(y + t * ROW, read)

                                carry = load_tuple(carry_at + k * chunk_bytes, chunk)
                                grad_a = mul(a, splat(0.0))
                                for from_end in range(steps):
                                    t = steps - 1 - from_end
                                    at, inner_at = t * ROW, t * chunk_bytes
                                    carry, grad_a, for_x, for_dt = step_back(
                                        carry, grad_a, a, inverse, load(inner + at), load(dt + at), load(x + at),
                                        load(u_place[0] + t * u_place[1]), bc + t * pitch, own,
                                        decays + inner_at, kept + inner_at, grads_of_part + k * tile_pitch + t * pitch,
                                    )  # fmt: skip
                                    if k > 0:
                                        for_x = add(for_x, load(gx + t * ROW))
                                        for_dt = add(for_dt, load(gdt + t * ROW))
                                    store(gx + t * ROW, for_x)
                                    store(gdt + t * ROW, for_dt)
                                store_tuple(carry_at + k * chunk_bytes, carry)
                                total_at = grad_rates + run * groups * blocks * block_bytes + a_at
                                store_tuple(total_at, add(load_tuple(total_at, chunk), grad_a))
                                if tile == 0 and grad_initial != 0:
                                    at = grad_initial + (sequence * states + n0) * wide + channel
                                    store_state(at, wide, lanes, states - n0, carry)

                            if mode != OWN and not is_exact:
                                add_scaled(y, x, dots, steps)
                                add_scaled(gx, inner, dots, steps)
                                for t in range(steps):
                                    at = t * ROW
                                    store(products + at, fma(load(inner + at), load(x + at), load(products + at)))
                            if mode == SHIFT:
                                shift(y, shifted, tokens, steps)
                                ungate(inner, g_place, z_place, weight, is_gated, steps)
                            if is_gated or grad_weights != 0:
                                dz = u_place
                                if is_gated:
                                    dz = place_of_result(
                                        z, frame + DZ, batch, group, first, lanes, tokens, steps, spacing, ahead
                                    )
                                total = finish_outer(dz, y, g_place, u_place, z_place, skip, weight, is_gated, steps)
                                if grad_weights != 0:
                                    store(grad_weights + sums, add(load(grad_weights + sums), total))
                                if is_gated and dz[0] == z:
                                    put(frame + DZ, 0, batch, group, first, lanes, tokens, steps, z, ROW)
                            du = place_of_result(
                                gx, frame + DU, batch, group, first, lanes, tokens, steps, spacing, ahead
                            )
                            ddelta = place_of_result(
                                gdt, frame + DDELTA, batch, group, first, lanes, tokens, steps, spacing, ahead
                            )
                            finish_inner(
                                du, ddelta, gx, gdt, inner, u_place, dt, skip, softplus != 0, scale, unscale, is_exact,
                                steps,
                            )  # fmt: skip
                            total = sum_present(gdt, tokens, is_padded, steps)
                            store(grad_biases + sums, add(load(grad_biases + sums), total))
                            if du[0] == gx:
                                put(frame + DU, 0, batch, group, first, lanes, tokens, steps, gx, ROW)
                            if ddelta[0] == gdt:
                                put(frame + DDELTA, 0, batch, group, first, lanes, tokens, steps, gdt, ROW)

                        if back > 0 and mode != OWN and not is_exact:
                            sum_lanes(factors, products, steps)
                            for k in range(chunks):
                                for t in range(steps):
                                    to = grads_of_part + k * tile_pitch + t * pitch
                                    bc = load_first(packed + k * tile_pitch + t * pitch, 2 * chunk)
                                    factor = broadcast_tuple(factors + 4 * t, 1)[0]
                                    other = swap_halves(bc, chunk)
                                    store_first(to, fma(other, factor, load_first(to, 2 * chunk)), 2 * chunk)
                    if back > 0:
                        add_branches(grads, last_part - first_part, part_bytes)
                        for k in range(chunks):
                            n0 = k * chunk
                            n, source = least(chunk, states - n0), grads + k * tile_pitch
                            put(frame + DB, to_db, batch, group, n0, n, tokens, steps, source, pitch)
                            put(frame + DC, to_dc, batch, group, n0, n, tokens, steps, source + half, pitch)

    return backward

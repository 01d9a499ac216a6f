# mypy: ignore-errors
# What triton compiles is Python in form only: it has no annotations, and tuples that grow.
# ruff: noqa: RUF005 - triton does not compile (*tuple, x)
"""The depthwise convolution along a route, forward and back. A program goes through a stretch of tokens.

A token reads the tokens that it sees by itself: its neighbours have just brought them into the cache.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from umamba_seg.kernels.triton.device import of_item, sigmoid


class Walk(NamedTuple):
    """Where the tokens of a route are, and between which of them each one sees; by loops, or by lists.

    Args:
        tokens: How many there are.
        fast_count: How many steps the fast loop makes,
        mid_count: and the middle one,
        fast_stride: and how many voxels each step goes ahead,
        mid_stride: also of the middle
        slow_stride: and of the slow one.
        start: The voxel of token 0.
        run: A piece ends at every multiple of `run` tokens,
        window: and inside a run after every `window` of its tokens.
        voxels: (b or 1, tokens), int64, -1 for none; None where the loops tell.
        items: How far it is from one batch item to the next; 0 where they share a list.
        bounds: (2, tokens), int32, the first token and the end of the piece of each; None where run and window tell.
    """

    tokens: int
    fast_count: int
    mid_count: int
    fast_stride: int
    mid_stride: int
    slow_stride: int
    start: int
    run: int
    window: int
    voxels: Any
    items: int
    bounds: Any


@triton.jit
def piece(walk, token, is_token):
    """The first token and the end of the piece that a token is in; of none, where there is no token."""
    if walk.bounds is not None:
        begin = tl.load(walk.bounds + token, mask=is_token, other=0)
        return begin, tl.load(walk.bounds + walk.tokens + token, mask=is_token, other=0)
    else:
        whole = token // walk.run * walk.run
        begin = whole + (token - whole) // walk.window * walk.window
        end = tl.minimum(begin + walk.window, whole + walk.run)
        return begin, tl.where(is_token, end, begin)


@triton.jit
def voxel(walk, item, token, is_token):
    """The voxel of a token, -1 for none."""
    if walk.voxels is not None:
        at = walk.voxels + tl.cast(item, tl.int64) * walk.items + token
        return tl.load(at, mask=is_token, other=-1)
    else:
        fast, rest = token % walk.fast_count, token // walk.fast_count
        there = walk.start + fast * walk.fast_stride + rest % walk.mid_count * walk.mid_stride
        there += rest // walk.mid_count * walk.slow_stride
        return tl.cast(tl.where(is_token, there, -1), tl.int64)


@triton.jit
def tile(at, array, there, channels, is_channel):
    """Where the channels of some voxels lie, and which of them there are: (BT, BD)."""
    columns = tl.cast(channels, tl.int64) * array.channel
    return at + there[:, None] * array.place + columns[None, :], (there >= 0)[:, None] & is_channel[None, :]


@triton.jit
def seen(u, u_at, walk, item, token, begin, end, channels, is_channel):
    """u of what each token sees at one place, zero outside its piece: (BT, BD)."""
    at, here = tile(u_at, u, voxel(walk, item, token, (token >= begin) & (token < end)), channels, is_channel)
    return tl.load(at, mask=here, other=0.0).to(tl.float32)


@triton.jit
def numbers(array, step, channels, is_channel):
    """One number for each channel, of weights those at one place: (1, BD)."""
    at = array.memory + tl.cast(channels, tl.int64) * array.channel + step * array.state
    return tl.load(at, mask=is_channel, other=0.0).to(tl.float32)[None, :]


@triton.jit
def plus(a, b):
    """For sums."""
    return a + b


@triton.jit(do_not_specialize=["dim", "before", "workers", "stretch"])
def convolve(
    u, grad, taps, bias, result, shares, walk, dim, before, workers, stretch,
    WIDTH: tl.constexpr, SILU: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y; or, where there is its gradient, that of what SiLU was given, and the shares of the weights and the bias.

    Args:
        shares: (b * workers, WIDTH + 1, d), the weights and then the bias; None without a gradient.
        workers: How many programs share the tokens of a batch item,
        stretch: and how many of them each has; it takes BT after the other.
    """
    share = tl.program_id(0)
    item, worker = share // workers, share % workers
    channels = tl.program_id(1) * BD + tl.arange(0, BD)
    is_channel = channels < dim
    u_at, result_at = of_item(u, 0, item), of_item(result, 0, item)
    nothing = tl.full([BT, BD], 0.0, tl.float32)
    sums = (nothing,) * (WIDTH + 1)
    first = worker * stretch
    for earliest in range(first, tl.minimum(first + stretch, walk.tokens), BT):
        token = earliest + tl.arange(0, BT)
        is_token = token < walk.tokens
        there = voxel(walk, item, token, is_token)
        begin, end = piece(walk, token, is_token)
        o = nothing
        if bias is not None:
            o += numbers(bias, 0, channels, is_channel)
        for j in tl.static_range(WIDTH):
            x = seen(u, u_at, walk, item, token + (j - before), begin, end, channels, is_channel)
            o += x * numbers(taps, j, channels, is_channel)
        if grad is None:
            found = o * sigmoid(o) if SILU else o
        else:
            at, here = tile(of_item(grad, 0, item), grad, there, channels, is_channel)
            found = tl.load(at, mask=here, other=0.0).to(tl.float32)
            if SILU:
                gate = sigmoid(o)
                found = found * gate * (1.0 + o * (1.0 - gate))
            added = ()
            for j in tl.static_range(WIDTH):
                x = seen(u, u_at, walk, item, token + (j - before), begin, end, channels, is_channel)
                added = added + (sums[j] + found * x,)
            sums = added + (sums[WIDTH] + found,)
        at, here = tile(result_at, result, there, channels, is_channel)
        tl.store(at, found, mask=here)
    if shares is not None:
        own = shares + tl.cast(share, tl.int64) * ((WIDTH + 1) * dim) + channels
        for j in tl.static_range(WIDTH + 1):
            tl.store(own + j * dim, tl.reduce(sums[j], 0, plus), mask=is_channel)

"""The scan of a volume as a plain loop over tokens, to hold the kernels to. Slow, obvious, differentiable.

A route is a list of voxel numbers, found by permuting and flipping a volume that holds them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Reset = int | Tensor | None


def scan_volume(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    space: tuple[int, ...],
    routes: Sequence[str | Tensor],
    delta_softplus: bool = False,
    reset: Reset | Sequence[Reset] = None,
    merge: str = "sum",
    weights: Tensor | None = None,
    decay_scale: Sequence[float] | None = None,
    exclusive: str | None = None,
    exact_gain: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y and the last states (k, b, s, d, n), in the dtype of the arguments."""
    resets = list(reset) if isinstance(reset, list | tuple) else [reset] * len(routes)
    dims, batch = len(space), u.shape[-len(space) - 2]
    channels = u.shape[-1] // len(routes) if merge == "concat" else u.shape[-1]
    merged, lasts = [], []
    for k, route in enumerate(routes):
        own = slice(k * channels, (k + 1) * channels) if merge == "concat" else slice(None)
        u_k, delta_k, B_k, C_k = (_in_a_row(_of_route(x, k, dims + 2), space) for x in (u, delta, B, C))
        A_k = _of_route(A, k, 2)[own]
        nothing = torch.zeros_like(A_k[:, 0])
        bias, skip = (nothing if x is None else _of_route(x, k, 1)[own] for x in (delta_bias, D))
        dt = delta_k[..., own] + bias
        if delta_softplus:
            dt = F.softplus(dt, threshold=100)  # log(1 + exp(x)); in float64, x itself is the same from 37 on
        dt = dt * (1 if decay_scale is None else decay_scale[k])
        gain = _held(dt, A_k) if exact_gain else dt[..., None]

        y = [[nothing] * prod(space) for _ in range(batch)]
        pieces = [list(pieces_of(route, resets[k], space, item)) for item in range(max(1, batch))]
        last = []
        for item in range(batch):
            for piece, voxels in enumerate(pieces[item]):
                h = torch.zeros_like(A_k) if initial_state is None else initial_state[k, item, piece]
                read_before = nothing
                for v in voxels:
                    decayed = torch.exp(dt[item, v, :, None] * A_k) * h
                    h = decayed + gain[item, v] * u_k[item, v, own, None] * B_k[item, v]
                    read = ((decayed if exclusive == "own" else h) * C_k[item, v]).sum(1)
                    output = read_before if exclusive == "shift" else read
                    y[item][v] = y[item][v] + output + skip * u_k[item, v, own]
                    read_before = read
                last.append(h)
        y = _stacked([_stacked(rows, nothing) for rows in y], nothing[None].expand(prod(space), -1))
        if z is not None:
            gate = _in_a_row(z[..., own], space)
            y = y * gate / (1 + torch.exp(-gate))
        if weights is not None:
            y = y * (weights[k] if weights.dim() == 1 else weights[:, k, None])
        merged.append(y.view(batch, *space, channels))
        lasts.append(_stacked(last, A_k).view(batch, len(pieces[0]), *A_k.shape))
    most = max(last.shape[1] for last in lasts)
    last = torch.stack([F.pad(last, (0, 0, 0, 0, 0, most - last.shape[1])) for last in lasts])
    if merge == "stack":
        return torch.stack(merged), last
    if merge == "concat":
        return torch.cat(merged, dim=-1), last
    return torch.stack(merged).sum(0) / (len(routes) if merge == "mean" else 1), last


def lines_of(route: str, space: tuple[int, ...]) -> list[list[int]]:
    """The numbers of the voxels along a raster, as one line, or along each line of a signed axis."""
    names, axes, signs, sign = "zyx"[-len(space) :], [], [], ""
    for letter in route:
        if letter in names:
            axes.append(names.index(letter))
            signs.append(sign)
        sign = letter
    others = [i for i in range(len(space)) if i not in axes]
    numbers = torch.arange(prod(space)).view(space)
    numbers = numbers.flip([i for i, sign in zip(axes, signs, strict=True) if sign == "-"]).permute(*others, *axes)
    return numbers.reshape(-1, prod(numbers.shape[len(others) :])).tolist() if numbers.numel() else [[]]


def pieces_of(route: str | Tensor, reset: Reset, space: tuple[int, ...], item: int) -> Iterator[list[int]]:
    """The numbers of the voxels of each piece."""
    if isinstance(route, Tensor):
        lines = [route.tolist() if route.dim() == 1 else route[item].tolist()]
    else:
        lines = lines_of(route, space)
    for line in lines:
        if isinstance(reset, Tensor):
            ends = reset.tolist()
        else:
            ends = [*range(0, len(line), reset or len(line)), len(line)] if line else [0, 0]
        yield from ([v for v in line[begin:end] if v >= 0] for begin, end in pairwise(ends))


def _of_route(x: Tensor, route: int, dims: int) -> Tensor:
    return x[route] if x.dim() > dims else x


def _in_a_row(x: Tensor, space: tuple[int, ...]) -> Tensor:  # (b, *space, c) -> (b, v, c)
    return x.reshape(x.shape[0], prod(space), x.shape[-1])


def _stacked(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(tensors) if tensors else like.new_zeros(0, *like.shape)


def _held(dt: Tensor, A: Tensor) -> Tensor:
    """What an input of 1 that holds for dt adds to a state: the integral of exp(A * s) for s from 0 to dt."""
    places, parts = np.polynomial.legendre.leggauss(20)
    s = dt[..., None, None] * torch.from_numpy((places + 1) / 2)
    summed = (torch.exp(A[..., None] * s) * torch.from_numpy(parts / 2)).sum(-1) * dt[..., None]
    solved = torch.expm1(dt[..., None] * A) / A.masked_fill(A == 0, 1)
    return torch.where((dt[..., None] * A).abs() < 1, summed, solved)  # which has no digits near A = 0

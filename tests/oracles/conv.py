"""The convolution along a route as a plain sum over neighbours, to hold the kernels to. Slow, obvious."""

from math import prod

import torch
from torch import Tensor

from tests.oracles.volume import Reset, pieces_of


def causal_conv(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    route: str | Tensor,
    centred: bool = False,
    activation: str | None = "silu",
    reset: Reset = None,
) -> Tensor:
    batch, *space, channels = u.shape
    width = weight.shape[1]
    before = (width - 1) // 2 if centred else width - 1
    voxels = u.reshape(batch, prod(space), channels)
    rows = [[torch.zeros_like(weight[:, 0])] * prod(space) for _ in range(batch)]
    for item in range(batch):
        for piece in pieces_of(route, reset, tuple(space), item):
            for t, voxel in enumerate(piece):
                places = [(j, t - before + j) for j in range(width)]
                seen = [weight[:, j] * voxels[item, piece[i]] for j, i in places if 0 <= i < len(piece)]
                o = sum(seen) if bias is None else sum(seen) + bias
                rows[item][voxel] = o if activation is None else o / (1 + torch.exp(-o))
    if not u.numel():
        return u.clone()
    return torch.stack([torch.stack(row) for row in rows]).view(u.shape)

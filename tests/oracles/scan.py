"""The selective scan as a plain loop over tokens, to hold the kernels to. Slow, obvious, differentiable."""

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    layout: str = "bdl",
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y, laid out like u, and the last state of each sequence, in the dtype of the arguments."""
    if layout == "bld":
        u, delta = u.mT, delta.mT
        z = None if z is None else z.mT
        B, C = (x if x.ndim == 2 else torch.einsum("bl...n->b...nl", x) for x in (B, C))
    batch, channels, length = u.shape
    pieces = [(item, 0, length) for item in range(batch)]
    if cu_seqlens is not None:
        pieces = [(0, int(cu_seqlens[i]), int(cu_seqlens[i + 1])) for i in range(len(cu_seqlens) - 1)]

    ys, lasts = [[] for _ in range(batch)], []
    for number, (item, first, end) in enumerate(pieces):
        h = u.new_zeros(A.shape) if initial_state is None else initial_state[number]
        tokens = [x[item, :, first:end].unbind(1) for x in (u, delta)]
        coefficients = [_of_each_channel(x, item, channels, first, end) for x in (B, C)]
        outputs = []
        steps = list(zip(*tokens, *coefficients, strict=True))
        for u_t, delta_t, B_t, C_t in steps[::-1] if reverse else steps:
            dt = delta_t if delta_bias is None else delta_t + delta_bias
            if delta_softplus:
                dt = F.softplus(dt, threshold=100)  # log(1 + exp(x)); in float64, x itself is the same from 37 on
            h = torch.exp(dt[:, None] * A) * h + (dt * u_t)[:, None] * B_t
            outputs.append((C_t * h).sum(1))
        ys[item] += outputs[::-1] if reverse else outputs
        lasts.append(h)

    y = u.new_zeros(u.shape)
    if batch and length:
        y = torch.stack([torch.stack(outputs, dim=1) for outputs in ys])
    if D is not None:
        y = y + u * D[:, None]
    if z is not None:
        y = y * (z / (1 + torch.exp(-z)))
    last = torch.stack(lasts) if lasts else u.new_zeros(0, *A.shape)
    return (y.mT if layout == "bld" else y), last


def _of_each_channel(x: Tensor, item: int, channels: int, first: int, end: int) -> list[Tensor]:
    """B or C as one (channels, states) per token."""
    if x.ndim == 2:
        return [x] * (end - first)
    if x.ndim == 3:
        return [token.expand(channels, -1) for token in x[item, :, first:end].unbind(1)]
    per_group = channels // x.shape[1]
    groups = [group.expand(per_group, *group.shape) for group in x[item, :, :, first:end]]  # (d / g, n, l) each
    return list(torch.cat(groups).unbind(2))

"""The Mamba layer, one token after the other, in the precision of its inputs.

Written from section 3 of Gu and Dao 2023 (arXiv:2312.00752) and the order of operations of the published layer.
Letters: b batch, l tokens, d channels, e inner channels, n states, r rank of delta, k width of the convolution.
"""

import torch
from torch import Tensor


def mamba_layer(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Map (b, l, d) to (b, l, d) with the weights under the names of mamba_ssm."""
    inner, states = weights["A_log"].shape
    rank = weights["dt_proj.weight"].shape[1]
    A = -torch.exp(weights["A_log"])  # (e, n)
    kernel = weights["conv1d.weight"][:, 0, :]  # (e, k)
    width = kernel.shape[1]
    batch, length, _ = tokens.shape

    projected = torch.einsum("bld,fd->blf", tokens, weights["in_proj.weight"])
    x, gate = projected[..., :inner], projected[..., inner:]

    h = torch.zeros(batch, inner, states, dtype=tokens.dtype)
    outputs = []
    for t in range(length):
        convolved = weights["conv1d.bias"].expand(batch, inner)
        for back in range(min(width, t + 1)):
            convolved = convolved + kernel[:, width - 1 - back] * x[:, t - back]
        u = convolved * torch.sigmoid(convolved)  # (b, e)
        mixed = torch.einsum("be,fe->bf", u, weights["x_proj.weight"])
        B, C = mixed[:, rank : rank + states], mixed[:, rank + states :]  # (b, n) each
        raw = torch.einsum("br,er->be", mixed[:, :rank], weights["dt_proj.weight"]) + weights["dt_proj.bias"]
        delta = torch.log1p(torch.exp(raw))  # (b, e)
        h = torch.exp(delta[..., None] * A) * h + delta[..., None] * B[:, None, :] * u[..., None]
        y = torch.einsum("ben,bn->be", h, C) + weights["D"] * u
        y = y * gate[:, t] * torch.sigmoid(gate[:, t])
        outputs.append(torch.einsum("be,de->bd", y, weights["out_proj.weight"]))
    return torch.stack(outputs, dim=1)

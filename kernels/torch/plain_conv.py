"""The convolution along a route, piece by piece, in ops that autograd can follow to any order.

Held to `umamba_seg.kernels.torch.conv` by a test. Gives second derivatives; too slow for training.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.torch import second


def causal_conv(conv: Conv) -> Tensor:
    """y (b, *space, d)."""
    u, weight = conv.u.to(conv.dtype).flatten(1, len(conv.space)), conv.weight.to(conv.dtype)
    order = conv.order()
    table = order.voxels(u.device).expand(conv.batch, -1)
    y = u.new_zeros(conv.batch, prod(conv.space), conv.channels)
    for item in range(conv.batch):
        for begin, end in order.bounds():
            voxels = table[item, begin:end]
            voxels = voxels[voxels >= 0]
            tokens = F.pad(u[item, voxels], (0, 0, conv.before, conv.width - 1 - conv.before))
            seen = torch.stack([tokens[j : j + len(voxels)] for j in range(conv.width)])  # (w, l, d)
            outputs = (seen * weight.T[:, None]).sum(0)
            if conv.bias is not None:
                outputs = outputs + conv.bias.to(conv.dtype)
            outputs = F.silu(outputs) if conv.has_silu else outputs
            y = y.index_put((torch.full_like(voxels, item), voxels), outputs)
    return y.unflatten(1, conv.space).to(conv.u.dtype)


def second_derivatives(conv: Conv, grad: Tensor, directions: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
    """The derivative of the convolution's gradients along `directions`; see `second.second_derivatives`."""

    def compute(inputs: dict[str, Any]) -> tuple[Tensor]:
        return (causal_conv(replace(conv, **inputs)),)

    return second.second_derivatives(compute, conv.differentiable(), {"grad": grad}, directions)

"""What the published Mamba layers share: one projection in and out, and between them branches along routes.

    u, gate = in_proj x;   y = sum over branches of scan(conv(u)) * silu(gate), each along its route;   out_proj y

The voxels stay where they are: convolution and scan walk each route in place, so that nothing is permuted and back.

Shapes: b batch, s spatial axes, c channels, e inner channels, n states, r rank of delta, w width of the convolution.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from umamba_seg.kernels import causal_conv, scan_volume
from umamba_seg.kernels.problem import CHECKPOINT_STEP
from umamba_seg.mixers.mixer import Mixer
from umamba_seg.mixers.precision import outside_autocast

DELTA_MIN, DELTA_MAX = 1e-3, 1e-1  # step sizes at the start of training


class BranchedMixer(Mixer):
    """Branches, each a set of convolution, selection, A and D; their parameters are named as in mamba_ssm and a suffix.

    It computes in the dtype of its parameters from end to end, under autocast too: what it writes reaches 1e6
    (state-spaces/mamba issue 72), more than float16 holds, and no norm follows inside.

    Args:
        channels: c of the feature map.
        sets: Suffixes of the sets of parameters, such as "" and "_b".
        torch_started: Those of them whose step sizes start as torch starts any layer, at about 0.7, far from the
            range of Mamba: reach of a few voxels.
        states: n, the memory of each inner channel.
        conv_width: How many voxels back along its route the depthwise convolution reads, the voxel itself included.
        expand: e / c.
    """

    def __init__(
        self,
        channels: int,
        *,
        sets: Sequence[str] = ("",),
        torch_started: Sequence[str] = (),
        states: int,
        conv_width: int,
        expand: int,
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.inner, self.states, self.rank = inner, states, math.ceil(channels / 16)
        for suffix in sets:
            A_log = torch.arange(1.0, states + 1).log().repeat(inner, 1)
            self.register_parameter(f"A{suffix}_log", nn.Parameter(A_log))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(inner)))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        for suffix in sets:
            conv = nn.Conv1d(inner, inner, conv_width, padding=conv_width - 1, groups=inner)
            self.add_module(f"conv1d{suffix}", conv)
            self.add_module(f"x_proj{suffix}", nn.Linear(inner, self.rank + 2 * states, bias=False))
            self.add_module(f"dt_proj{suffix}", nn.Linear(self.rank, inner))
        self.out_proj = nn.Linear(inner, channels, bias=False)
        for suffix in sets:
            if suffix not in torch_started:
                dt_proj = cast(nn.Linear, self.get_submodule(f"dt_proj{suffix}"))
                start_delta(dt_proj.weight, dt_proj.bias)

    def _mix(self, x: Tensor, branches: Iterable[tuple[str, str | Tensor]], scale: float = 1) -> Tensor:
        """Mix (b, *s, c) along branches, each a set of parameters and a route; their sum is multiplied by `scale`."""
        with outside_autocast(x.device.type):
            u, gate = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)  # (b, *s, e) each
            y = reduce(torch.add, (self._branch(suffix, route, u, gate) for suffix, route in branches))
            return self.out_proj(y if scale == 1 else scale * y).to(x.dtype)

    def _branch(self, suffix: str, route: str | Tensor, u: Tensor, gate: Tensor) -> Tensor:  # (b, *s, e)
        conv = cast(nn.Conv1d, self.get_submodule(f"conv1d{suffix}"))
        x_proj, dt_proj = (cast(nn.Linear, self.get_submodule(name + suffix)) for name in ("x_proj", "dt_proj"))
        A_log, D = self.get_parameter(f"A{suffix}_log"), self.get_parameter(f"D{suffix}")
        u = causal_conv(u, conv.weight[:, 0], conv.bias, route=route)  # SiLU follows
        delta, B, C = x_proj(u).split((self.rank, self.states, self.states), dim=-1)
        delta = widened(delta, dt_proj.weight)  # its bias is added in the scan
        A = -A_log.exp()  # negative, so that every state decays
        y = scan_volume(
            u, delta, A, B, C, D, gate, dt_proj.bias, routes=[route], delta_softplus=True, spatial_dims=u.dim() - 2
        )
        return cast(Tensor, y)  # without the last states

    def _saved_elements(self, tokens: int, branches: int) -> int:
        channels, inner = self.in_proj.in_features, self.inner
        voxel = channels + 3 * inner  # input, u, gate, sum of the branches
        voxel += branches * (2 * inner + self.rank + 2 * self.states)  # convolution with its SiLU, delta, selection
        shared = branches * inner * (self.states + self.rank)  # A, and the weights that `widened` turns
        return tokens * voxel + shared + branches * inner * self.states * tokens // CHECKPOINT_STEP


def widened(delta: Tensor, weight: Tensor) -> Tensor:
    """delta (*, r) to (*, e) as a linear layer with the weight (e, r) does, and the same bits.

    Weights that lie in memory as (r, e) get their gradient as (r, e) too: with r = 2 and 147456 voxels torch's way to
    (e, r) takes a CPU seven times as long.
    """
    return delta @ weight.t().contiguous()


def start_delta(weight: Tensor, bias: Tensor) -> None:
    """Step sizes spread evenly in their logarithm: at first some channels remember long, some short.

    Args:
        weight: (e, r), from the r numbers of a voxel to the step sizes of its channels.
        bias: (e,), added to them ahead of softplus.
    """
    inner, rank = weight.shape
    delta = torch.empty(inner).uniform_(math.log(DELTA_MIN), math.log(DELTA_MAX)).exp()
    with torch.no_grad():
        weight.uniform_(-(rank**-0.5), rank**-0.5)
        bias.copy_(delta + (-torch.expm1(-delta)).log())  # the inverse of softplus

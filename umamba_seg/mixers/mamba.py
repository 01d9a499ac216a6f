"""The stock Mamba layer (Gu and Dao 2023, arXiv:2312.00752, figure 3) over the voxels in raster order.

Shapes: b batch, s spatial axes, l voxels, c channels, e inner channels, n states, r rank of delta.
Parameters are named as in mamba_ssm, so that its weights load.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.kernels import causal_conv, selective_scan
from umamba_seg.mixers.mixer import Mixer

DELTA_MIN, DELTA_MAX = 1e-3, 1e-1  # step sizes at the start of training


class MambaMixer(Mixer):
    """Mixes voxels along one scan, the last axis fastest.

    It computes in the dtype of its parameters from end to end, under autocast too: what it writes reaches 1e6
    (state-spaces/mamba issue 72), more than float16 holds, and in U-Mamba no norm follows.

    Args:
        channels: c of the feature map.
        spatial_dims: Any number of axes; a raster has no use for it.
        states: n, the memory of each inner channel.
        conv_width: How many voxels back along the raster the depthwise convolution reads, the voxel itself included.
        expand: e / c.
    """

    def __init__(
        self, channels: int, *, spatial_dims: int, states: int = 16, conv_width: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.inner, self.states, self.rank = inner, states, math.ceil(channels / 16)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_width, padding=conv_width - 1, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self._start_delta()

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c) along the raster; the result has the dtype of `x`."""
        with _outside_autocast(x.device.type):
            tokens = x.flatten(1, -2).to(self.in_proj.weight.dtype)  # (b, l, c)
            u, gate = self.in_proj(tokens).chunk(2, dim=-1)  # (b, l, e) each
            # each voxel reads itself and those before it along the raster; SiLU follows
            u = causal_conv(u, self.conv1d.weight[:, 0], self.conv1d.bias, route="+x")
            delta, B, C = self._select(u)
            A = -self.A_log.exp()  # negative, so that every state decays
            y = selective_scan(
                u, delta, A, B, C, D=self.D, z=gate, delta_bias=self.dt_proj.bias, delta_softplus=True, layout="bld"
            )
            y = self.out_proj(y)  # (b, l, c)
        return y.view(x.shape).to(x.dtype)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them."""
        channels = self.in_proj.in_features  # the input of in_proj
        wide = 6 * self.inner  # u, gate, convolution with its SiLU, delta, scan, gated scan
        return tokens * (channels + wide + self.x_proj.out_features)

    def _select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each voxel does to the states: its step size (b, l, e) without bias, and B and C (b, l, n)."""
        delta, B, C = self.x_proj(u).split((self.rank, self.states, self.states), dim=-1)
        return F.linear(delta, self.dt_proj.weight), B, C

    def _start_delta(self) -> None:
        """Step sizes spread evenly in their logarithm: at first some channels remember long, some short."""
        low, high = math.log(DELTA_MIN), math.log(DELTA_MAX)
        delta = torch.empty(self.inner).uniform_(low, high).exp()
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-(self.rank**-0.5), self.rank**-0.5)
            self.dt_proj.bias.copy_(delta + (-torch.expm1(-delta)).log())  # the inverse of softplus


def _outside_autocast(device_type: str) -> AbstractContextManager[None]:
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # meta tensors know no autocast and refuse to leave it

"""The layer that `axes`, `routes` and their control `gated_conv` share.

    v, z = in_proj x;   u = silu(conv(v));   y = look(u) + D u;   out_proj(norm(y) * silu(z))

where `look` lets u see far and is what the three differ in; in `gated_conv` it is nothing.

Shapes: b batch, s spatial axes, c channels, e inner channels.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.mixers.depthwise import DepthwiseConv
from umamba_seg.mixers.mixer import Mixer


class GatedLayer(Mixer):
    """A depthwise convolution, a long look and a gate, with a norm ahead of the gate.

    Projections and convolution follow autocast; the norm keeps what leaves in 16 bits small.

    Args:
        channels: c of the feature map.
        inner: e.
        kernel_size: Kernel of the convolution, one number per axis.
        zero_init: Start with an out projection of zeros, so that a slot with a residual starts as if it were not there.
    """

    def __init__(self, channels: int, inner: int, kernel_size: Sequence[int], *, zero_init: bool) -> None:
        super().__init__()
        self.inner = inner
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = DepthwiseConv(inner, kernel_size)
        self.D = nn.Parameter(torch.ones(inner))
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        if zero_init:
            nn.init.zeros_(self.out_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c); the result has the dtype of `x`."""
        v, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)  # (b, *s, e) each
        u = F.silu(self.conv(v))
        y = self.D * u
        seen = self._look(u)
        if seen is not None:
            y = y + seen
        y = self.norm(y.to(self.norm.weight.dtype))
        return self.out_proj(y * F.silu(z)).to(x.dtype)

    @abstractmethod
    def _look(self, u: Tensor) -> Tensor | None:
        """What each voxel sees of `u` (b, *s, e), in float32 or wider; None where there is nothing to see."""

    def _saved_around_look(self) -> int:
        """Numbers per voxel that are kept for the backward pass outside of the look."""
        # x; v and z; convolution, u; y; its norm, the gate, their product
        return self.in_proj.in_features + 8 * self.inner

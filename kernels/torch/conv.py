"""Depthwise convolutions along a route in plain torch, on any device.

A block of tokens is read together with those it sees beside it; then each weight meets a shifted view of them.

Shapes, beside those of `conv_problem.py`: r rows, l tokens of a block, m = l + w - 1 with those beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.torch.blocks import Block, blocks
from umamba_seg.kernels.torch.strands import Stretch, Table, strands
from umamba_seg.kernels.torch.total import Total


def forward(conv: Conv) -> Tensor:
    """y."""
    u, y = conv.u.flatten(1, len(conv.space)), torch.empty_like(conv.u)
    total = Total(y[None], len(conv.space), conv.dtype)
    for sight in _sights(conv):
        o = _convolve(conv, sight.read(u).to(conv.dtype))
        sight.strand.add(total.sum[0], sight.block, F.silu(o) if conv.has_silu else o)
    total.finished()
    return y


def backward(conv: Conv, grad: Tensor) -> dict[str, Tensor]:
    """The gradients of all tensors of the convolution, by name."""
    u, grad = (x.flatten(1, len(conv.space)) for x in (conv.u, grad))
    gradients = {name: torch.empty_like(x) for name, x in conv.differentiable().items()}
    total = Total(gradients["u"][None], len(conv.space), conv.dtype)
    taps = _taps(conv)
    sums = {"weight": torch.zeros_like(taps), "bias": torch.zeros_like(taps[0])}
    for sight in _sights(conv):
        tokens = sight.read(u).to(conv.dtype)
        g = sight.strand.read(grad, sight.block).to(conv.dtype)
        if conv.has_silu:
            o = _convolve(conv, tokens)
            gate = o.sigmoid()
            g = g * gate * (1 + o * (1 - gate))
        seen, length = torch.zeros_like(tokens), g.shape[1]
        for j, tap in enumerate(taps):
            sums["weight"][j] += (g * tokens[:, j : j + length]).sum((0, 1))
            seen[:, j : j + length].addcmul_(g, tap)
        sums["bias"] += g.sum((0, 1))
        sight.add(total.sum[0], seen)
    total.finished()
    gradients["weight"].copy_(sums["weight"].T)
    if conv.bias is not None:
        gradients["bias"].copy_(sums["bias"])
    return gradients


@dataclass(frozen=True, slots=True)
class _Sight:
    """A block of tokens, and those it sees, of which `lacking` many are beyond the begin and the end of the piece."""

    strand: Stretch | Table
    block: Block
    seen: Block
    lacking: tuple[int, int]

    def read(self, u: Tensor) -> Tensor:
        """What the block sees: (r, m, d)."""
        return F.pad(self.strand.read(u, self.seen), (0, 0, *self.lacking))

    def add(self, target: Tensor, x: Tensor) -> None:
        """Add x (r, m, d) to a volume where `read` would find it."""
        begin = self.lacking[0]
        self.strand.add(target, self.seen, x[:, begin : begin + self.seen.length])


def _sights(conv: Conv) -> Iterator[_Sight]:
    """All blocks of the route."""
    device, before, behind = conv.u.device, conv.before, conv.width - 1 - conv.before
    for strand, _ in strands(conv.order(), conv.space, device, is_shifted=False):
        closed = strand.closed() if isinstance(strand, Table) else strand
        for rows, cut in blocks((conv.batch, len(strand.pieces), strand.length), conv.channels, device):
            for block in cut:
                begin, end = block.tokens.start - before, block.tokens.stop + behind
                seen = slice(max(0, begin), min(end, strand.length))
                yield _Sight(closed, block, Block(rows, seen, 1, 1), (seen.start - begin, end - seen.stop))


def _taps(conv: Conv) -> Tensor:  # (w, d)
    return conv.weight.to(conv.dtype).T.contiguous()


def _convolve(conv: Conv, tokens: Tensor) -> Tensor:  # (r, m, d) -> (r, l, d)
    length = tokens.shape[1] - conv.width + 1
    o = tokens.new_zeros(tokens.shape[0], length, conv.channels)
    if conv.bias is not None:
        o += conv.bias
    for j, tap in enumerate(_taps(conv)):
        o.addcmul_(tokens[:, j : j + length], tap)
    return o

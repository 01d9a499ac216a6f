"""Layers that give torch's numbers, bit for bit, in less processor time than torch takes on a CPU.

- A convolution of one channel, mostly the first of a network: for volumes of up to 20 480 voxels in the first two axes
  torch writes out the 27 neighbours of each voxel beforehand; oneDNN, which it uses for larger ones, does not.
- An instance norm: torch adds up one channel voxel by voxel, each addition waiting for the one before. Here four
  channels go side by side, each in the same order.

Both are other ways to the same sums, and nothing says that they stay so on every processor and in every version of
torch. So the first tile of each shape goes through torch's layer too, and a bit that differs keeps torch's.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor, nn

from umamba_seg.inference.sums import VALUES_OF_A_THREAD

SIDE_BY_SIDE = 4  # channels, as `_moments` has them
ENOUGH = 1000  # numbers other than 0 that a comparison takes

Layer = Callable[[Tensor], Tensor]
_Four = tuple[np.float32, np.float32, np.float32, np.float32]


def quicken(network: nn.Module) -> None:
    """Let a network in float32 on a CPU compute some of its layers otherwise: they get another `forward`."""
    pool = ThreadPoolExecutor(torch.get_num_threads())
    for layer in network.modules():
        if (quick := _quick_way(layer, pool)) is not None:
            layer.forward = Checked(layer.forward, quick)


def _quick_way(layer: nn.Module, pool: ThreadPoolExecutor) -> Layer | None:
    """None for layers that have none."""
    if isinstance(layer, nn.Conv3d) and layer.in_channels == 1 and torch.backends.mkldnn.is_available():
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return None
        return partial(
            torch.mkldnn_convolution,
            weight=layer.weight,
            bias=layer.bias,
            padding=layer.padding,
            stride=layer.stride,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    if isinstance(layer, (nn.InstanceNorm2d, nn.InstanceNorm3d)) and not layer.track_running_stats:
        return partial(_normed, layer, pool) if layer.num_features % SIDE_BY_SIDE == 0 else None
    return None


class Checked:
    """A layer in a quick way, for shapes in which that gave the same bits as the sure way.

    Args:
        sure: The layer as it is.
        quick: The same in less time.
    """

    def __init__(self, sure: Layer, quick: Layer) -> None:
        self.sure, self.quick = sure, quick
        self.is_same: dict[torch.Size, bool] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer makes of a tile."""
        if x.dtype != torch.float32 or not x.is_contiguous():
            return self.sure(x)
        if self.is_same.get(x.shape):
            return self.quick(x)
        made = self.sure(x)
        if x.shape not in self.is_same and x.count_nonzero() >= min(ENOUGH, x.numel()):
            self.is_same[x.shape] = torch.equal(self.quick(x), made)
        return made


def _normed(layer: nn.InstanceNorm2d | nn.InstanceNorm3d, pool: ThreadPoolExecutor, x: Tensor) -> Tensor:
    channels, voxels = x.shape[0] * x.shape[1], x[0, 0].numel()
    scale, shift = np.ones(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    if layer.affine:
        scale, shift = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    made = torch.empty_like(x)
    lines, to = (array.numpy().reshape(channels, voxels) for array in (x, made))
    pieces = max(1, min(torch.get_num_threads(), channels // SIDE_BY_SIDE, x.numel() // VALUES_OF_A_THREAD))
    bounds = [channels // SIDE_BY_SIDE * piece // pieces * SIDE_BY_SIDE for piece in range(pieces + 1)]
    own, *rest = pairwise(bounds)
    others = [pool.submit(_norm, lines, to, scale, shift, layer.eps, *span) for span in rest]
    _norm(lines, to, scale, shift, layer.eps, *own)
    for other in others:
        other.result()
    return made


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _norm(
    x: np.ndarray, out: np.ndarray, scale: np.ndarray, shift: np.ndarray, eps: float, first: int, last: int
) -> None:
    """Some channels of (b*c, voxels): less the mean, over the deviation, times `scale`, plus `shift`.

    What torch has in float32 is rounded to it here: means, squares, and what numbers are multiplied with and added.
    """
    count = np.float32(x.shape[1])
    for c in range(first, last, SIDE_BY_SIDE):
        means, squares = _moments(x[c], x[c + 1], x[c + 2], x[c + 3])
        for k in range(SIDE_BY_SIDE):
            channel = (c + k) % scale.size
            factor = np.float32(1 / np.sqrt(np.float64(squares[k] / count) + eps)) * scale[channel]
            summand = shift[channel] - means[k] * factor
            values, to = x[c + k], out[c + k]
            for i in range(values.size):
                to[i] = values[i] * factor + summand


@numba.njit(nogil=True, inline="always")
def _moments(x0: np.ndarray, x1: np.ndarray, x2: np.ndarray, x3: np.ndarray) -> tuple[_Four, _Four]:
    """The means of four channels, and the sums of squared distances from them, each added up in order in float64."""
    n = x0.size
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        s0 += x0[i]
        s1 += x1[i]
        s2 += x2[i]
        s3 += x3[i]
    m0, m1, m2, m3 = np.float32(s0 / n), np.float32(s1 / n), np.float32(s2 / n), np.float32(s3 / n)
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        d0, d1, d2, d3 = x0[i] - m0, x1[i] - m1, x2[i] - m2, x3[i] - m3
        s0 += d0 * d0
        s1 += d1 * d1
        s2 += d2 * d2
        s3 += d3 * d3
    return (m0, m1, m2, m3), (np.float32(s0), np.float32(s1), np.float32(s2), np.float32(s3))

"""A scan of many channels as several scans of fewer, which share B and C: the arrays of a block must fit the cache."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from umamba_seg.kernels.problem import CHECKPOINT_STEP, Scan
from umamba_seg.kernels.torch.blocks import block_size


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive channels.

    Args:
        start: The first.
        width: How many.
        whole: How many the scan has.
    """

    start: int
    width: int
    whole: int

    def channels(self, x: Tensor, axis: int = -1) -> Tensor:
        """The part's channels of a tensor, of which it has one where all are the same."""
        return x if x.shape[axis] != self.whole else x.narrow(axis, self.start, self.width)

    def groups(self, x: Tensor) -> Tensor:
        """The groups (*, g, n) of a B or C that the part's channels belong to."""
        size = self.whole // x.shape[-2]
        return x.narrow(-2, self.start // size, max(1, self.width // size))


def parts(scan: Scan) -> Iterator[Part]:
    """All channels of a scan; a part has whole groups of B and C, or lies within one."""
    width = _width(scan)
    for start in range(0, scan.channels, width):
        yield Part(start, min(width, scan.channels - start), scan.channels)


def _width(scan: Scan) -> int:
    most = max(1, 3 * block_size(scan.u.device) // (2 * CHECKPOINT_STEP * scan.states))  # half more beats a second part
    even = -(-scan.channels // -(-scan.channels // most))
    sizes = [scan.channels // x.shape[-2] for x in (scan.B, scan.C)]
    for width in range(even, most // 4, -1):
        if all(size == scan.channels or size % width == 0 or width % size == 0 for size in sizes):
            return width
    return scan.channels

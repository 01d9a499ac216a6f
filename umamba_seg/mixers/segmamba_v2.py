"""The Mamba layer of SegMamba-V2: the stock layer over several orders of the axes, with one set of weights.

    y = M(x; z, y, x) + M(x; y, z, x) + M(x; x, y, z),   each order slow to fast

Shapes: b batch, s spatial axes, c channels.
"""

from torch import Tensor

from umamba_seg.mixers.branches import BranchedMixer

ORDERS = {1: ("+x",), 2: ("+y+x", "+x+y"), 3: ("+z+y+x", "+y+z+x", "+x+y+z")}


class SegMambaV2Mixer(BranchedMixer):
    """Mixes voxels along three rasters, none backwards: x is the fast axis of two of them, z of one, y of none.

    In 2D there are two rasters, each axis once the fast one. The parameters are those of the stock layer.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        states: n, the memory of each inner channel.
        conv_width: How many voxels back along each route the depthwise convolution reads, the voxel itself included.
        expand: Inner channels / c.
    """

    def __init__(
        self, channels: int, *, spatial_dims: int, states: int = 16, conv_width: int = 4, expand: int = 2
    ) -> None:
        super().__init__(channels, states=states, conv_width=conv_width, expand=expand)
        self.orders = ORDERS[spatial_dims]

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c) along all orders; the result has the dtype of `x`."""
        return self._mix(x, [("", order) for order in self.orders])

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them."""
        return self._saved_elements(tokens, branches=len(self.orders))

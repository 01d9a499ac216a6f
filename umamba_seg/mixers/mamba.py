"""The stock Mamba layer (Gu and Dao 2023, arXiv:2312.00752, figure 3) over the voxels in raster order.

Shapes: b batch, s spatial axes, c channels, l voxels. Its parameters are those of mamba_ssm, whose weights load.
"""

from torch import Tensor

from umamba_seg.mixers.branches import BranchedMixer


class MambaMixer(BranchedMixer):
    """Mixes voxels along one scan, the last axis fastest.

    Args:
        channels: c of the feature map.
        spatial_dims: Any number of axes; a raster has no use for it.
        states: n, the memory of each inner channel.
        conv_width: How many voxels back along the raster the depthwise convolution reads, the voxel itself included.
        expand: Inner channels / c.
    """

    def __init__(
        self, channels: int, *, spatial_dims: int, states: int = 16, conv_width: int = 4, expand: int = 2
    ) -> None:
        super().__init__(channels, states=states, conv_width=conv_width, expand=expand)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c) along the raster; the result has the dtype of `x`."""
        tokens = x.flatten(1, -2)  # (b, l, c)
        return self._mix(tokens, [("", "+x")]).view(x.shape)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them."""
        return self._saved_elements(tokens, branches=1)

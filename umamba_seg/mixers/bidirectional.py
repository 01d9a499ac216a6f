"""The layer of Vision Mamba (Zhu et al. 2024, arXiv:2401.09417) over the raster and the raster backwards.

    y = f(x) + f_b(x, backwards),   out_proj y   (or y / 2)

Shapes: b batch, s spatial axes, c channels.
"""

from torch import Tensor

from umamba_seg.mixers.branches import BranchedMixer
from umamba_seg.mixers.order import raster, reverse


class BidirectionalMixer(BranchedMixer):
    """Mixes voxels along one raster in both directions; the one in and the one out projection are shared.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        shared: Both directions have the same parameters, those of the stock layer; else the second one has its own
            convolution, selection, A and D, with "_b" in their names.
        divide_out: Take the mean of the directions instead of their sum, as the released Vision Mamba models do.
        as_published: Let the step sizes of the second direction start as torch starts any layer, which Vision Mamba
            does by mistake. It matters to training, not to weights that are loaded.
        states: n, the memory of each inner channel.
        conv_width: How many voxels back along each route its depthwise convolution reads, the voxel itself included.
        expand: Inner channels / c.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        shared: bool = False,
        divide_out: bool = False,
        as_published: bool = False,
        states: int = 16,
        conv_width: int = 4,
        expand: int = 2,
    ) -> None:
        super().__init__(
            channels,
            sets=("",) if shared else ("", "_b"),
            torch_started=("_b",) if as_published else (),
            states=states,
            conv_width=conv_width,
            expand=expand,
        )
        forwards = raster(spatial_dims)
        self.branches = [("", forwards), ("" if shared else "_b", reverse(forwards))]
        self.scale = 0.5 if divide_out else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c) in both directions; the result has the dtype of `x`."""
        return self._mix(x, self.branches, self.scale)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them."""
        return self._saved_elements(tokens, branches=2)

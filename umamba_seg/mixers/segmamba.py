"""ToM, the Mamba layer of SegMamba v1 (Xing et al. 2024, arXiv:2401.13560): three routes, each with weights of its own.

    y = f(x) + f_b(x, backwards) + f_s(x, slice after slice),   out_proj y

Shapes: b batch, s spatial axes, c channels, l voxels, k slices.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from umamba_seg.errors import UsageError
from umamba_seg.mixers.branches import BranchedMixer
from umamba_seg.mixers.order import raster, reverse

SETS = ("", "_b", "_s")


class SegMambaMixer(BranchedMixer):
    """Mixes voxels along the raster, the raster backwards, and along depth, the slowest axis of memory.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        directions: How many of the three routes there are: 3 as published last ("v3"), 2 and 1 as published before.
        slices: How many equal chunks the third route steps through: the first voxel of each chunk, the second of each,
            and so on. None is the depth of the map, so that the route runs along depth. SegMamba has 64, 32, 16 and 8
            in its four stages whatever the map: weights trained on other depths than 128 need them.
        as_published: Let the step sizes of the second and third route start as torch starts any layer, which SegMamba
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
        directions: int = 3,
        slices: int | None = None,
        as_published: bool = False,
        states: int = 16,
        conv_width: int = 4,
        expand: int = 2,
    ) -> None:
        if directions not in (1, 2, 3):
            raise UsageError(f"segmamba has 1, 2 or 3 directions, got {directions!r}", code="bad-mixer-option")
        if slices is not None and slices < 1:
            raise UsageError(f"segmamba needs at least 1 slice, got {slices!r}", code="bad-mixer-option")
        sets = SETS[:directions]
        super().__init__(
            channels,
            sets=sets,
            torch_started=sets[1:] if as_published else (),
            states=states,
            conv_width=conv_width,
            expand=expand,
        )
        self.sets, self.slices = sets, slices
        memory = raster(spatial_dims)
        self.routes = (memory, reverse(memory), memory[2:] + memory[:2])

    def forward(self, x: Tensor) -> Tensor:
        """Mix (b, *s, c) along all routes; the result has the dtype of `x`."""
        routes: list[str | Tensor] = [*self.routes[: len(self.sets)]]
        if len(self.sets) == 3 and self.slices is not None and self.slices != x.shape[1]:
            routes[2] = _through_chunks(x.shape[1:-1], self.slices, x.device)
        return self._mix(x, zip(self.sets, routes, strict=True))

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them."""
        return self._saved_elements(tokens, branches=len(self.sets))


def _through_chunks(size: Sequence[int], slices: int, device: torch.device) -> Tensor:
    """The voxels (l,) in the order: the first of each of the chunks, the second of each, ..."""
    voxels = math.prod(size)
    if voxels % slices:
        raise UsageError(
            f"segmamba cannot cut a map of {'×'.join(map(str, size))} = {voxels} voxels into {slices} equal slices",
            how=[
                "leave slices out, which takes the depth of each map",
                "use an input of other size: with SegMamba's own 64, 32, 16, 8 the product of its axes, each divided "
                "by 16, must be a multiple of 8",
            ],
            code="bad-size",
        )
    return torch.arange(voxels, device=device).view(slices, -1).T.flatten()

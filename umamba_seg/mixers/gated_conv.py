"""The control of `axes`: the same layer without the scan. What `axes` is better by, its scan is good for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from umamba_seg.errors import UsageError
from umamba_seg.mixers.axes import AxesMixer
from umamba_seg.mixers.depthwise import kernel_of
from umamba_seg.mixers.gated_layer import GatedLayer

MATCHES = ("width", "parameters")


class GatedConvMixer(GatedLayer):
    """Lets each voxel see its neighbours, through projections, depthwise convolution, norm and gate of `axes`.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        match: "width" has the inner channels of `axes`; "parameters" as many as make up for the missing scan.
        parameters: How many parameters there are to match; None for those of `axes` in this place.
        kernel_size: Kernel of the depthwise convolution, one number per axis; 3 on each unless given.
        expand: Inner channels / c; with match="parameters" those of the `axes` that is matched.
        zero_init: Start with an out projection of zeros: a slot with a residual starts as if it were not there.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        match: str = "width",
        parameters: int | None = None,
        kernel_size: Sequence[int] | None = None,
        expand: int = 1,
        zero_init: bool = False,
    ) -> None:
        check_match(match)
        kernel, inner = kernel_of(kernel_size, spatial_dims), expand * channels
        if match == "parameters":
            wanted = _parameters_of_axes(channels, kernel, expand) if parameters is None else parameters
            of_one = 3 * channels + math.prod(kernel) + 4  # projections; kernel and bias; D and norm
            inner = max(1, round(wanted / of_one))
        super().__init__(channels, inner, kernel, zero_init=zero_init)

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass."""
        return tokens * self._saved_around_look()

    def _look(self, u: Tensor) -> Tensor | None:
        return None


def check_match(match: str) -> None:
    """Refuse what a control cannot have in common with the layer it stands in for."""
    if match not in MATCHES:
        raise UsageError(f"match must be one of {', '.join(MATCHES)}; got {match!r}", code="bad-mixer-option")


def _parameters_of_axes(channels: int, kernel_size: Sequence[int], expand: int) -> int:
    with torch.device("meta"):
        axes = AxesMixer(channels, spatial_dims=len(kernel_size), kernel_size=kernel_size, expand=expand)
    return sum(parameter.numel() for parameter in axes.parameters())

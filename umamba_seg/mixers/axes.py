"""`axes`: lines along every axis in both directions, the mixer that this project proposes.

No line leaks into the next, every axis is reached in every layer, weights know no patch size. See `route_layer` for
the formula.
"""

from collections.abc import Sequence

from umamba_seg.errors import UsageError
from umamba_seg.kernels.routes import AXES
from umamba_seg.mixers.depthwise import kernel_of
from umamba_seg.mixers.route_layer import RouteLayer


class AxesMixer(RouteLayer):
    """Lets each voxel see along the lines through it and its neighbours; any voxel sees any other after three layers.

    An axis on which the map has one voxel is left out.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        kernel_size: Kernel of the depthwise convolution ahead of the scans, one number per axis; 3 on each unless
            given.
        spacing: Edges of a voxel of this map in mm, one per axis.
        axes: Which axes have lines, like "yx"; None for all.
        states: n, the memory of each inner channel and route.
        expand: Inner channels / c.
        tie: Which routes share step sizes and decays: "pair" both directions of an axis, "all", "none".
        mode: "parallel" adds up what the routes see. "cascade" goes along the last axis of memory first and each
            further axis over what was seen, normed, so that one layer sees the whole map.
        group: Give each route a share of the channels instead of all of them; `tie` says nothing then.
        scale: Scan a copy of the map with voxels as many times larger on each axis that the kernel spans.
        exclusive: Leave each voxel itself out of what it sees; D alone carries it.
        bc_norm: Norm B and C over their states. Without, the scan has next to no part in the layer at the start.
        mm: "axis" lets states decay per millimetre, relative to the finest axis (at most 16 times as fast per voxel);
            "absolute" per millimetre, at every stage alike; "off" per voxel. Without `spacing` a voxel counts as 1.
        learns_weights: Give each route a weight that is learned, 1 at first.
        zero_init: Start with an out projection of zeros: a slot with a residual starts as if it were not there.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        kernel_size: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        axes: str | None = None,
        states: int = 8,
        expand: int = 1,
        tie: str = "pair",
        mode: str = "parallel",
        group: bool = False,
        scale: int = 1,
        exclusive: bool = False,
        bc_norm: bool = True,
        mm: str = "axis",
        learns_weights: bool = False,
        zero_init: bool = False,
    ) -> None:
        names = _chosen(axes, spatial_dims)
        super().__init__(
            channels,
            routes=[sign + axis for axis in names for sign in "+-"],
            kernel_size=kernel_of(kernel_size, spatial_dims),
            spacing=spacing_of(spacing, spatial_dims),
            states=states,
            expand=expand,
            tie=tie,
            mode=mode,
            group=group,
            scale=scale,
            exclusive=exclusive,
            bc_norm=bc_norm,
            mm=mm,
            learns_weights=learns_weights,
            zero_init=zero_init,
        )


def spacing_of(spacing: Sequence[float] | None, spatial_dims: int) -> tuple[float, ...] | None:
    """The edges of a voxel on the axes of the map; in 2D those in the plane.

    Raises:
        UsageError: There are fewer than axes, or one is not positive.
    """
    if spacing is None:
        return None
    edges = tuple(float(edge) for edge in spacing)[-spatial_dims:]
    if len(edges) < spatial_dims or min(edges) <= 0:
        raise UsageError(
            f"spacing must have a positive number for each of {spatial_dims} axes, got {spacing!r}",
            code="bad-mixer-option",
        )
    return edges


def _chosen(axes: str | None, spatial_dims: int) -> str:
    """Axes in the order of memory."""
    names = AXES[spatial_dims]
    chosen = names if axes is None else axes
    if not chosen or set(chosen) - set(names) or len(set(chosen)) < len(chosen):
        known = ", ".join(names)
        raise UsageError(f"axes must be some of {known}, like {names!r}; got {axes!r}", code="bad-mixer-option")
    return "".join(name for name in names if name in chosen)

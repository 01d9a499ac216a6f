"""`routes`: the layer of `axes` with any routes in place of the lines, or the orders of published layers.

A preset is the orders of a published layer and nothing else of it: convolution, norm and gate are those of `axes`.
"""

from collections.abc import Sequence
from itertools import chain

from umamba_seg.errors import UsageError, unknown
from umamba_seg.kernels.routes import parse
from umamba_seg.mixers.axes import spacing_of
from umamba_seg.mixers.depthwise import kernel_of
from umamba_seg.mixers.order import raster, reverse
from umamba_seg.mixers.route_layer import RouteLayer

# by number of axes, each axis the fast one once
FASTEST_ONCE = {1: ("+x",), 2: ("+y+x", "+x+y"), 3: ("+z+y+x", "+z+x+y", "+x+y+z")}

PRESETS = ("raster2", "raster6", "vim_v2", "ss2d", "mamba_nd", "segmamba")
IN_3D_ONLY = ("mamba_nd", "segmamba")


class RoutesMixer(RouteLayer):
    """Lets each voxel see along routes through the whole map.

    Args:
        channels: c of the feature map.
        spatial_dims: 1, 2 or 3.
        routes: A list of rasters, like "+z+y-x", slow axis to fast, and of axes, like "-y", for the lines along it; or
            a preset. "raster2" and "vim_v2": the order of memory, there and back. "raster6": each axis the fast one
            once, there and back; four routes in 2D. "ss2d": the same, all ways there first, as in VMamba. "mamba_nd":
            the same six, as the layers of Mamba-ND have one after the other. "segmamba": memory, there and back, and
            depth the fast axis.
        kernel_size: Kernel of the depthwise convolution ahead of the scans, one number per axis; 3 on each unless
            given.
        spacing: Edges of a voxel of this map in mm, one per axis; of use to lines alone.
        states: n, the memory of each inner channel and route.
        expand: Inner channels / c.
        tie: Which routes share step sizes and decays: "pair" a route and its reverse, "all", "none".
        group: Give each route a share of the channels instead of all of them; `tie` says nothing then.
        scale: Scan a copy of the map with voxels as many times larger on each axis that the kernel spans.
        exclusive: Leave each voxel itself out of what it sees; D alone carries it.
        bc_norm: Norm B and C over their states. Without, the scan has next to no part in the layer at the start.
        mm: What lines count a voxel as, see `AxesMixer`; rasters count 1.
        learns_weights: Give each route a weight that is learned, 1 at first.
        zero_init: Start with an out projection of zeros: a slot with a residual starts as if it were not there.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_dims: int,
        routes: str | Sequence[str] = "raster6",
        kernel_size: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        states: int = 8,
        expand: int = 1,
        tie: str = "pair",
        group: bool = False,
        scale: int = 1,
        exclusive: bool = False,
        bc_norm: bool = True,
        mm: str = "axis",
        learns_weights: bool = False,
        zero_init: bool = False,
    ) -> None:
        super().__init__(
            channels,
            routes=preset(routes, spatial_dims) if isinstance(routes, str) else _parsed(routes, spatial_dims),
            kernel_size=kernel_of(kernel_size, spatial_dims),
            spacing=spacing_of(spacing, spatial_dims),
            states=states,
            expand=expand,
            tie=tie,
            mode="parallel",
            group=group,
            scale=scale,
            exclusive=exclusive,
            bc_norm=bc_norm,
            mm=mm,
            learns_weights=learns_weights,
            zero_init=zero_init,
        )


def preset(name: str, spatial_dims: int) -> list[str]:
    """The routes of a published layer.

    Raises:
        UsageError: There is none of this name, or it makes no sense over so many axes.
    """
    if name not in PRESETS:
        raise unknown("preset of routes", name, PRESETS, how=['or give a list, like ["+z+y+x", "-x"]'])
    if name in IN_3D_ONLY and spatial_dims != 3:
        raise UsageError(
            f"routes={name!r} are orders of volumes, and the map has {spatial_dims} axes",
            how=["use raster6, which has each axis as the fast one over any number of axes"],
            code="bad-mixer-option",
        )
    there = FASTEST_ONCE[spatial_dims]
    memory = raster(spatial_dims)
    if name in ("raster2", "vim_v2"):
        return [memory, reverse(memory)]
    if name == "segmamba":
        return [memory, reverse(memory), "+y+x+z"]
    if name == "ss2d":
        return [*there, *map(reverse, there)]
    return list(chain.from_iterable((route, reverse(route)) for route in there))


def _parsed(routes: Sequence[str], spatial_dims: int) -> list[str]:
    if not routes:
        raise UsageError("there must be at least one route", code="bad-mixer-option")
    try:
        return [parse(route, spatial_dims) for route in routes]
    except ValueError as error:
        raise UsageError(str(error), code="bad-mixer-option") from None

"""Rasters of a volume, written as the kernels take them: the axes slow to fast, with a sign each."""

from umamba_seg.kernels.routes import AXES, parse

_OPPOSITE = str.maketrans("+-", "-+")


def raster(spatial_dims: int) -> str:
    """The order of memory: "+z+y+x" for a volume."""
    return parse(AXES[spatial_dims], spatial_dims)


def reverse(route: str) -> str:
    """The same tokens, the last one first; every axis of `route` has its sign."""
    return route.translate(_OPPOSITE)

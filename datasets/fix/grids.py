"""Bringing voxels to another grid: without loss where only the order of axes differs, else by resampling."""

import numpy as np

from umamba_seg.datasets.check.facts import displacement
from umamba_seg.datasets.volumes import Volume

ROUNDING = 0.05  # voxels, as `umamba check` counts
SAME_PLACE = 1.5  # voxels of the coarser grid that the faces of two boxes may be apart


def reordered(volume: Volume, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray | None:
    """The voxels on the grid of `shape` and `affine`, if swapping and turning axes is all it takes; else None."""
    if volume.array.ndim != 3 or len(shape) != 3 or not _is_regular(affine, volume.affine):
        return None
    turn = (np.linalg.inv(affine) @ volume.affine)[:3, :3]  # of axes: from the volume to the grid
    signs = np.rint(turn)
    if not ((np.abs(signs).sum(0) == 1).all() and (np.abs(signs).sum(1) == 1).all()):
        return None
    sources = np.abs(signs).argmax(1)  # for each axis of the grid, the axis of the volume
    found = volume.array.transpose(sources)
    back = np.zeros((4, 4))  # from voxels of what is found to those of the volume
    back[3, 3] = 1
    for axis, source in enumerate(sources):
        back[source, axis] = signs[axis, source]
        if signs[axis, source] < 0:
            found, back[source, 3] = np.flip(found, axis), volume.array.shape[source] - 1
    if found.shape != tuple(shape):
        return None
    far = displacement(volume.affine @ back, affine, tuple(shape))
    return found if far <= ROUNDING * np.linalg.norm(affine[:3, :3], axis=0).min() else None


def covers_the_same(shape: tuple[int, ...], affine: np.ndarray, other: tuple[int, ...], grid: np.ndarray) -> bool:
    """Whether two grids lie on the same piece of space, with voxels of another size or a slice more or less."""
    if len(shape) != 3 or len(other) != 3 or not _is_regular(affine, grid):
        return False
    to_grid = np.linalg.inv(grid) @ affine
    size, wanted = np.array(shape), np.array(other)
    corners = np.array([[x, y, z, 1] for x in _edges(size[0]) for y in _edges(size[1]) for z in _edges(size[2])])
    box = (corners @ to_grid.T)[:, :3]
    coarser = np.maximum(1.0, np.abs(to_grid[:3, :3]).max(1))
    low, high = np.abs(box.min(0) + 0.5), np.abs(box.max(0) - (wanted - 0.5))
    return bool((np.maximum(low, high) <= SAME_PLACE * coarser).all())


def resampled(volume: Volume, shape: tuple[int, ...], affine: np.ndarray, *, is_label: bool) -> np.ndarray:
    """The voxels on another grid: of a label the nearest, of an image between its neighbours; outside the lowest."""
    from scipy.ndimage import affine_transform

    back = np.linalg.inv(volume.affine) @ affine  # from voxels of the grid to those of the volume
    array = volume.array if is_label else volume.array.astype(np.float64)
    outside = 0 if is_label else float(array.min())
    found = affine_transform(array, back[:3, :3], back[:3, 3], shape, order=0 if is_label else 1, cval=outside)
    if is_label or volume.array.dtype.kind == "f":
        return found.astype(volume.array.dtype)
    return np.rint(found).astype(volume.array.dtype)


def upright(shape: tuple[int, ...], affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """The nearest grid with right angles that holds a sheared one, with the same spacing."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    made = np.eye(4)
    made[:3, :3] = (left @ right) * spacing
    size = np.array(shape) - 1
    corners = np.array([[x, y, z, 1] for x in (0, size[0]) for y in (0, size[1]) for z in (0, size[2])])
    inside = (corners @ (np.linalg.inv(made) @ affine).T)[:, :3]
    low, high = np.floor(inside.min(0) + ROUNDING), np.ceil(inside.max(0) - ROUNDING)
    made[:3, 3] = (made @ [*low, 1])[:3]
    return tuple(int(n) for n in high - low + 1), made


def _edges(size: int) -> tuple[float, float]:
    return -0.5, size - 0.5


def _is_regular(*affines: np.ndarray) -> bool:
    return all(np.isfinite(x).all() and abs(np.linalg.det(x[:3, :3])) > 1e-9 for x in affines)

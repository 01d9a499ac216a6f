"""How far a mixer lets a voxel see, in millimetres along each signed axis; before training or after it.

One voxel in the middle of a map of noise is moved a little. What moves in the result, its root mean square over the
channels, counts relative to what moves at the voxel itself. A single voxel is hard on slow averages, whose point is a
small weight per voxel, so a row of voxels is moved alike too, and what moves beyond its ends is compared with what
moves inside.

Shapes: p probes, s spatial axes, c channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from umamba_seg.errors import UsageError
from umamba_seg.kernels.routes import AXES
from umamba_seg.mixers.mixer import Mixer

CLEAR, FAINT = 1e-2, 1e-3  # parts of the change at the voxel itself that count as seen
STEP = 1e-2  # how far voxels are moved; those of the map are 1 in the mean
BLOCK = 32  # voxels that are moved alike

_EVERY: tuple[int | slice, ...] = (slice(None),)


@dataclass(frozen=True, slots=True)
class Reach:
    """What one voxel moves, by signed axis such as "+x"; axes of one voxel are missing.

    Args:
        spacing: Edge of a voxel in mm, by axis.
        responses: The change 0, 1, 2, ... voxels ahead relative to that at the voxel, geometric means over the probes.
        blocks: The change 1, 2, ... voxels beyond the end of a row that moved, relative to the mean change within it.
        wrap: The change at the first voxel of a line where the last one of the line before it moved: a raster puts them
            side by side, and over any other way they are a whole line apart. None where a map is one line.
    """

    spacing: Mapping[str, float]
    responses: Mapping[str, tuple[float, ...]]
    blocks: Mapping[str, tuple[float, ...]]
    wrap: float | None

    def voxels(self, direction: str, threshold: float = CLEAR) -> int:
        """How many voxels ahead there still is a change of at least `threshold`, 0 where only the voxel itself has."""
        return max((r for r, part in enumerate(self.responses[direction]) if r and part >= threshold), default=0)

    def mm(self, direction: str, threshold: float = CLEAR) -> float:
        """The same in millimetres."""
        return self.voxels(direction, threshold) * self.spacing[direction[1]]

    def symmetry(self, axis: str, threshold: float = CLEAR) -> float:
        """How many times as far the axis is seen ahead as back; 1 where neither way anything is seen."""
        ahead, back = (self.voxels(sign + axis, threshold) for sign in "+-")
        if ahead == back:
            return 1.0
        return ahead / back if back else float("inf")


@torch.no_grad()
def measure(
    mixer: Mixer,
    channels: int,
    size: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    probes: int = 8,
    seed: int = 0,
) -> Reach:
    """Measure the reach of a mixer, which is left as it is.

    Args:
        mixer: At its initial values or trained.
        channels: c of its maps.
        size: Of the map; nothing beyond its half can be seen.
        spacing: Edges of a voxel in mm, one per axis; 1 unless given.
        probes: Maps of noise, each with a voxel moved in a direction of its own.
        seed: Of the noise.

    Raises:
        UsageError: Size and spacing do not fit, or the mixer writes zeros.
    """
    edges = (1.0,) * len(size) if spacing is None else tuple(spacing)
    if len(edges) != len(size) or len(size) not in AXES:
        raise UsageError(f"a map has 1 to 3 axes, each with a spacing; got {size!r} and {spacing!r}", code="bad-size")
    names, middle = AXES[len(size)], tuple(n // 2 for n in size)
    probe = _Probe(mixer, channels, size, probes, seed)
    change = probe.change(middle)
    if not _at(change, middle).all():
        raise UsageError(
            "this mixer writes nothing, wherever its input moves",
            how=["measure it after training, or without zero_init"],
            code="no-response",
        )
    responses, blocks = {}, {}
    for axis, (name, n) in enumerate(zip(names, size, strict=True)):
        if n == 1:
            continue
        line = _line(change, middle, axis)
        parts = line / line[:, middle[axis], None]
        responses["+" + name] = _geometric_means(parts[:, middle[axis] :])
        responses["-" + name] = _geometric_means(parts[:, : middle[axis] + 1].flip(1))

        length = min(BLOCK, (n + 1) // 2)
        begin = (n - length) // 2
        row = slice(begin, begin + length)
        line = _line(probe.change((*middle[:axis], row, *middle[axis + 1 :])), middle, axis)
        parts = line / line[:, row].mean(1, keepdim=True)
        blocks["+" + name] = _geometric_means(parts[:, row.stop :])
        blocks["-" + name] = _geometric_means(parts[:, :begin].flip(1))
    return Reach(dict(zip(names, edges, strict=True)), responses, blocks, _wrap(probe, middle))


class _Probe:
    """Maps of noise, normed as a slot norms them, and what a mixer makes of them."""

    def __init__(self, mixer: Mixer, channels: int, size: Sequence[int], probes: int, seed: int) -> None:
        generator, like = torch.Generator().manual_seed(seed), next(mixer.parameters())
        noise = torch.randn(probes, *size, channels, generator=generator)
        self.mixer, self.size = mixer, tuple(size)
        self.x = F.layer_norm(noise, (channels,)).to(like)
        self.direction = torch.randn(probes, channels, generator=generator).to(like)
        self.y = mixer(self.x)

    def change(self, place: Sequence[int | slice]) -> Tensor:
        """What moves everywhere (p, *s) where the voxels at a place move alike."""
        moved, where = self.x.clone(), (*_EVERY, *(slice(i, i + 1) if isinstance(i, int) else i for i in place))
        moved[where] += STEP * self.direction.view(len(moved), *[1] * len(self.size), -1)
        return (self.mixer(moved) - self.y).square().mean(-1).sqrt()


def _wrap(probe: _Probe, middle: Sequence[int]) -> float | None:
    if len(middle) < 2 or probe.size[-2] < 2:
        return None
    line = middle[-2] - 1 if middle[-2] + 1 == probe.size[-2] else middle[-2]
    last, first = (*middle[:-2], line, probe.size[-1] - 1), (*middle[:-2], line + 1, 0)
    change = probe.change(last)
    return _geometric_means((_at(change, first) / _at(change, last))[:, None])[0]


def _at(x: Tensor, place: Sequence[int]) -> Tensor:
    """The values (p,) at a voxel."""
    return x[*_EVERY, *place]


def _line(x: Tensor, place: Sequence[int], axis: int) -> Tensor:
    """The values (p, n) on the line along an axis through a place."""
    return x[*_EVERY, *place[:axis], *_EVERY, *place[axis + 1 :]]


def _geometric_means(parts: Tensor) -> tuple[float, ...]:
    """Over the probes; zero where one of them has nothing."""
    return tuple(parts.double().log().mean(0).exp().tolist())

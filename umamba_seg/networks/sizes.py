"""What sizes of input a network takes, and what it says about others."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

from umamba_seg.errors import UsageError
from umamba_seg.networks.topology import Size

REACH = 8  # how many steps away a size that fits is looked for


def text(size: Sequence[int]) -> str:
    """`32×64×64`."""
    return "×".join(str(int(n)) for n in size)


def check_divisible(size: Sequence[int], steps: Size) -> None:
    """Accept sizes each of whose axes is a multiple of its total stride.

    Raises:
        UsageError: There are more or fewer axes, or one is no multiple.
    """
    if len(size) != len(steps):
        raise UsageError(f"this network takes {len(steps)} spatial axes, got {len(size)}", code="bad-size")
    if any(n < step or n % step for n, step in zip(size, steps, strict=True)):
        smaller = [max(n // step, 1) * step for n, step in zip(size, steps, strict=True)]
        larger = [max(-(-n // step), 1) * step for n, step in zip(size, steps, strict=True)]
        raise UsageError(
            f"each axis of the input must be a multiple of {text(steps)}, the total strides; got {text(size)}",
            how=[
                f"use {text(smaller)} or {text(larger)}"
                if min(larger) and smaller != larger
                else f"use {text(smaller)}"
            ],
            code="bad-size",
        )


def nearest(size: Sequence[int], steps: Size, fits: Callable[[Size], bool]) -> Size | None:
    """The size that fits with the fewest voxels added to or taken from the axes; the larger one of two.

    Args:
        size: What is near.
        steps: Every axis of the result is a multiple of these.
        fits: What else it must satisfy.
    """
    candidates = [found for found in product(*map(_around, size, steps)) if fits(found)]
    return min(candidates, key=lambda found: (_distance(found, size), -math.prod(found)), default=None)


def _around(n: int, step: int) -> Iterator[int]:
    middle = n // step
    return (k * step for k in range(max(middle - REACH, 1), middle + REACH + 1))


def _distance(one: Size, other: Sequence[int]) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))

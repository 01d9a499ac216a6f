"""Cases that preprocessing cannot hold in memory, told before a worker is killed without a word."""

import statistics
from collections.abc import Iterator, Sequence
from math import prod

from umamba_seg.datasets.check.facts import CaseFacts, FileFacts
from umamba_seg.datasets.findings import Finding

GB = 1e9
MOST_NAMED = 5


def faults(cases: Sequence[CaseFacts], channels: int, free: float) -> Iterator[Finding]:
    """The cases that take more than is free, the largest first.

    Args:
        cases: All of them.
        channels: How many there are.
        free: Bytes.
    """
    needed = {case.case: need for case, need in zip(cases, _needs(cases, max(channels, 1)), strict=True) if need > free}
    if not needed:
        return
    largest = sorted(needed, key=lambda case: -needed[case])[:MOST_NAMED]
    told = ", ".join(f"{case} {needed[case] / GB:.3g} GB" for case in largest)
    yield Finding(
        "huge", "warning", f"preprocessing takes more memory than the {free / GB:.3g} GB that are free: {told}",
        tuple(sorted(needed)), found=round(max(needed.values()) / GB, 2), expected=round(free / GB, 2),
        nnunet="a worker is killed, with no reason told",
        mend="umamba plan --dry-run tells what a plan takes; preprocess with -j 1, or crop these cases",
    )  # fmt: skip


def _needs(cases: Sequence[CaseFacts], channels: int) -> Iterator[float]:
    """Bytes that each case takes when it is resampled to the set's median spacing."""
    images = [_image(case) for case in cases]
    spacings = [image.spacing for image in images if image is not None]
    medians = [statistics.median(axis) for axis in zip(*spacings, strict=True)]
    for image in images:
        before = 0.0 if image is None else float(prod(image.space[:3]))
        ratios = (
            [] if image is None else [mm / usual for mm, usual in zip(image.spacing, medians, strict=True) if usual]
        )
        yield peak_bytes(before, before * prod(ratios), channels)


def _image(case: CaseFacts) -> FileFacts | None:
    image = case.images.get(0)
    return image if image is not None and not image.fault and len(image.space) == 3 else None


def peak_bytes(before: float, after: float, channels: int) -> float:
    """Images as read, cropped and resampled in float32 with their labels, and one channel at work in float64.

    `umamba_seg.planning.estimate` counts in the same way.

    Args:
        before: Voxels as stored.
        after: Voxels when resampled.
        channels: How many.
    """
    return (2 * before + after) * (4 * channels + 2) + 24 * max(before, after)

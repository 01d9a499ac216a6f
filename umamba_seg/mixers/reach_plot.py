"""A picture of how far a mixer lets a voxel see."""

from pathlib import Path

from umamba_seg.mixers.reach import CLEAR, FAINT, Reach


def plot(reach: Reach, title: str, file: Path) -> None:
    """Draw the response along each axis, against millimetres from the voxel that moved, into an image file."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    axes = sorted({direction[1] for direction in reach.responses}, reverse=True)
    figure = Figure(figsize=(4 * len(axes), 3.2), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes, strict=True):
        back, ahead = reach.responses["-" + axis], reach.responses["+" + axis]
        values = [*reversed(back), *ahead[1:]]
        places = [reach.spacing[axis] * i for i in range(1 - len(back), len(ahead))]
        panel.semilogy(places, [max(value, 1e-6) for value in values], marker=".")
        for threshold in (CLEAR, FAINT):
            panel.axhline(threshold, color="grey", linewidth=0.6, linestyle="--")
        panel.set(xlabel=f"{axis}, mm", ylim=(1e-6, 2))
    figure.axes[0].set_ylabel("change, relative to that at the voxel")
    figure.suptitle(title)
    figure.savefig(file, dpi=120)

"""What a slot knows of the place where its mixer works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Facts that a slot offers; a mixer gets those that its constructor names. None where nobody knows.

    Args:
        kernel_size: Kernel of the convolutions at this stage, one number per axis.
        spacing: Edges of one voxel of the map in mm, one per axis.
        parameters: How many parameters the published layer would have here, for mixers that match it.
    """

    kernel_size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    parameters: int | None = None

"""What keeps slices from being a volume, and what keeps a volume from being taken without a word.

Each is a short name and a sentence.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from umamba_seg.inference.dicom.slices import Slice
from umamba_seg.inference.dicom.stacks import SAME_DIRECTION, SAME_MM, Stack, Volume, near

SIDEWAYS = 0.5  # of a pixel, from the first slice to the last: more is a tilted gantry

RESAMPLED = "gantry-tilt"
# Nothing is wrong with these, but which of them is meant cannot be guessed.
ONLY_BY_NAME = {"localiser", "single-slice", "multi-echo", "mixed-orientation", "several-volumes"}
WAYS = {
    RESAMPLED: "resample it to an upright grid: --resample-tilt",
    "missing-slices": "fetch the series again from the archive; slices that are not there cannot be made up",
    "doubled-slices": "keep one file for each position",
    "uneven-slices": "export a reconstruction of even slices",
    "compressed-syntax": "export the series uncompressed, as Explicit VR Little Endian",
    "cut-off": "copy or fetch the file again",
    "colour": "export the original images, in shades of grey",
}


def fault_of(volume: Volume, stack: Stack | None) -> tuple[str, str] | None:
    """What keeps it from being a volume, as a code and a sentence."""
    if faults := [one.fault for one in volume.slices if one.fault]:
        return faults[0]
    if stack is None:
        return "no-geometry", f"its header lacks {_lacking(volume.slices)}"
    if len(volume.slices) == 1:
        return None
    return _doubled(stack) or _missing(stack) or _uneven(stack)


def _lacking(slices: Sequence[Slice]) -> str:
    lacks = {
        "ImagePositionPatient": any(one.position is None for one in slices),
        "ImageOrientationPatient": any(one.axes is None for one in slices),
        "PixelSpacing": any(one.spacing is None for one in slices),
    }
    return ", ".join(name for name, is_lacking in lacks.items() if is_lacking) + ", or it makes no sense"


def _doubled(stack: Stack) -> tuple[str, str] | None:
    at = np.flatnonzero(np.diff(stack.along) <= SAME_MM)
    if not len(at):
        return None
    first, second = stack.slices[at[0]], stack.slices[at[0] + 1]
    names = [one.path.name if one.frames == 1 else f"frame {one.frame + 1}" for one in (first, second)]
    places = len(np.unique(np.round(stack.along[at] / SAME_MM)))
    more = f", and so at {places - 1} other positions" if places > 1 else ""
    return "doubled-slices", f"several slices lie at {_mm(stack.along[at[0]])}: {names[0]} and {names[1]}{more}"


def _missing(stack: Stack) -> tuple[str, str] | None:
    """Gaps of whole steps in an otherwise even stack."""
    steps = np.diff(stack.along) / stack.step
    if np.abs(steps - np.round(steps)).max() > 2 * stack.slack / stack.step or steps.max() < 1.5:
        return None
    gaps = [
        f"{round(steps[at]) - 1} between {_mm(stack.along[at])} and {_mm(stack.along[at + 1])}"
        for at in np.flatnonzero(steps > 1.5)
    ]
    told = ", ".join(gaps[:3]) + (f", and {len(gaps) - 3} gaps more" if len(gaps) > 3 else "")
    return "missing-slices", f"slices are missing: {told}, where the others lie {_mm(stack.step)} apart"


def _uneven(stack: Stack) -> tuple[str, str] | None:
    steps, share = np.diff(stack.along), np.linspace(0, 1, len(stack.along))
    off = np.abs(stack.along - stack.along[0] - share * stack.length)
    if off.max() > stack.slack:
        worst = int(np.abs(steps - stack.step).argmax())
        return "uneven-slices", (
            f"its slices lie between {_mm(steps.min())} and {_mm(steps.max())} apart; "
            f"from {_mm(stack.along[worst])} to {_mm(stack.along[worst + 1])} it is {_mm(steps[worst])}"
        )
    aside = np.linalg.norm(stack.sideways - np.outer(share, stack.sideways[-1]), axis=1)
    if aside.max() > SIDEWAYS * stack.pixel:
        at = _mm(stack.along[int(aside.argmax())])
        return "uneven-slices", f"its slices lie on no line: that at {at} is {_mm(aside.max())} off to a side"
    return None


def _mm(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:g} mm"  # + 0.0, since -0 is no position


def doubt_of(volume: Volume, rivals: Sequence[Volume]) -> tuple[str, str] | None:
    """Why a volume is not taken unless it is named."""
    if is_localiser(volume):
        return "localiser", "it is a localiser"
    if len(volume.slices) == 1:
        return "single-slice", "it is a single slice"
    if len(rivals) == 1:
        return None
    if not all(near(rival.slices[0].axes, volume.slices[0].axes, atol=SAME_DIRECTION) for rival in rivals):
        return "mixed-orientation", f"its series holds {len(rivals)} volumes, of different orientations"
    if any(name.startswith(("Echo", "EffectiveEcho")) for name, _ in volume.marks):
        return "multi-echo", f"its series holds {len(rivals)} volumes, of different echoes"
    return "several-volumes", f"its series holds {len(rivals)} volumes"


def is_localiser(volume: Volume) -> bool:
    """Whether its header calls it one."""
    tags = volume.slices[0].tags
    kinds = [str(kind).upper() for name in ("ImageType", "FrameType") for kind in _listed(tags.get(name))]
    return "LOCALIZER" in kinds


def _listed(value: Any) -> Sequence[Any]:
    return () if value is None else [value] if isinstance(value, str) else value


def tilt_of(stack: Stack | None) -> tuple[str, str] | None:
    """Whether its slices drift sideways on their way along the normal."""
    if stack is None or np.linalg.norm(stack.sideways[-1]) <= SIDEWAYS * stack.pixel:
        return None
    aside = float(np.linalg.norm(stack.sideways[-1]))
    angle = math.degrees(math.atan2(aside, stack.length))
    return RESAMPLED, f"the gantry was tilted by {angle:.1f}°: the slices drift sideways by {_mm(aside)}"

"""Mending what voxels hold."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from umamba_seg.datasets import pictures, volumes
from umamba_seg.datasets.check.pictures import SCALED
from umamba_seg.datasets.check.values import ROUNDING
from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.fix.draft import Draft
from umamba_seg.datasets.fix.remedy import Step
from umamba_seg.datasets.volumes import Volume

WATER_AT_1024 = -1024.0  # what scanners add so that air is not negative
INT8 = 256

Change = Callable[[np.ndarray], np.ndarray]


def change(draft: Draft, name: str, how: Change) -> None:
    """Write a file anew with other voxels on the same grid."""
    volume = volumes.read(draft.folder / name)
    volumes.write(draft.folder / name, Volume(how(volume.array), volume.affine))


def relabel(array: np.ndarray, mapping: Mapping[float, int]) -> np.ndarray:
    """Other values for some of a label's values, all at once; what is no whole number stays what it is."""
    found = array.astype(np.result_type(array.dtype, *(np.min_scalar_type(new) for new in mapping.values())))
    for old, new in mapping.items():
        found[array == old] = new
    return volumes.as_labels(found) if _are_whole(found) else found


def _are_whole(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool((np.isfinite(array) & (array == np.rint(array))).all())


def _step(draft: Draft, finding: Finding, what: str, how: Change) -> Step | None:
    if len(finding.files) != 1 or not draft.has(finding.files[0]):
        return None
    (name,) = finding.files
    return Step(f"{name}: {what}", (name,), lambda: change(draft, name, how))


def mask_to_one(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A mask of 0 and 255 becomes one of 0 and 1."""
    if set(finding.found) != {255} or 1 not in draft.values or not draft.has(*finding.files):
        return None
    if not set(draft.facts(finding.files[0], with_values=True).values) <= {0.0, 255.0}:
        return None
    return _step(draft, finding, "255 is 1", lambda array: relabel(array, {255: 1}))


def map_value(draft: Draft, finding: Finding, value: tuple[int, int]) -> Step | None:
    """One value becomes another that dataset.json declares."""
    old, new = value
    if old not in finding.found or new not in draft.values:
        return None
    voxels = f"{old} is {new} in {finding.found[old]} voxels"
    return _step(draft, finding, voxels, lambda array: relabel(array, {old: new}))


def round_noise(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Values that are whole but for rounding become whole."""
    if not draft.has(*finding.files):
        return None
    values = draft.facts(finding.files[0], with_values=True).values
    if any(abs(value - round(value)) >= ROUNDING for value in values):
        return None
    return round_all(draft, finding, _)


def round_all(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Each value becomes the nearest whole number."""
    return _step(draft, finding, "values are rounded", lambda array: volumes.as_labels(np.rint(array)))


def unsigned(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """What int8 made negative gets its value back."""
    wanted = {int(value) + INT8 for value in finding.found}
    if not wanted <= set(draft.values):
        return None

    def how(array: np.ndarray) -> np.ndarray:
        whole = array.astype(np.int64)
        return volumes.as_labels(np.where(whole < 0, whole + INT8, whole))

    return _step(draft, finding, f"negative values are {INT8} more: {sorted(wanted)}", how)


def nothing_to_background(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """NaN in a label becomes background."""
    return _fill_label(draft, finding, 0, "background")


def nothing_to_ignore(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """NaN in a label becomes the value that training leaves out."""
    ignore = draft.description.get("labels", {}).get("ignore")
    return _fill_label(draft, finding, ignore, "ignore") if isinstance(ignore, int) else None


def _fill_label(draft: Draft, finding: Finding, value: int, name: str) -> Step | None:
    def how(array: np.ndarray) -> np.ndarray:
        found = np.where(np.isfinite(array), array, value)
        return volumes.as_labels(found) if _are_whole(found) else found

    return _step(draft, finding, f"{finding.found} voxels that are no numbers are {name}", how)


def fill_image(draft: Draft, finding: Finding, value: float) -> Step | None:
    """NaN and infinity in an image become a value."""
    if finding.found is None:  # the header's slope is at fault
        return None
    what = f"{finding.found} voxels that are no numbers are {value:g}"
    return _step(draft, finding, what, lambda array: np.where(np.isfinite(array), array, array.dtype.type(value)))


def subtract_1024(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The offset of CT that was lost."""
    return shift_image(draft, finding, WATER_AT_1024)


def shift_image(draft: Draft, finding: Finding, value: float) -> Step | None:
    """A number is added to all voxels."""

    def how(array: np.ndarray) -> np.ndarray:
        found = array.astype(np.float64) + value
        return _as_before(found, array)

    return _step(draft, finding, f"{value:+g} for all voxels", how)


def clip(draft: Draft, finding: Finding, value: tuple[float, float]) -> Step | None:
    """Values beyond two limits become these."""
    low, high = value
    names = finding.files or tuple(
        x for case in finding.cases for x in draft.files_of(case) if x.startswith("imagesTr")
    )
    names = tuple(name for name in names if draft.has(name))
    if not names:
        return None

    def act() -> None:
        for name in names:
            change(draft, name, lambda array: _as_before(np.clip(array.astype(np.float64), low, high), array))

    return Step(f"{', '.join(names)}: values are held within {low:g} and {high:g}", names, act)


def _as_before(found: np.ndarray, like: np.ndarray) -> np.ndarray:
    """In the type of `like`, or in one of the same kind that holds it."""
    if like.dtype.kind == "f":
        return found.astype(like.dtype)
    if (found != np.rint(found)).any():
        return found.astype(np.float32)
    fits = np.result_type(np.min_scalar_type(int(found.min())), np.min_scalar_type(int(found.max())))
    kept = np.iinfo(like.dtype).min <= found.min() and found.max() <= np.iinfo(like.dtype).max
    return found.astype(like.dtype if kept else fits)


def one_colour(draft: Draft, finding: Finding, number: int) -> Step | None:
    """One of the colours of a coloured volume is kept."""
    if finding.found not in ("rgb", "rgba") or number > 2:
        return None
    return _step(draft, finding, f"colour {number} alone is kept", lambda array: array[..., number])


def magnitude(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Complex voxels become their magnitudes."""
    if not str(finding.found).startswith("c"):
        return None
    return _step(draft, finding, "complex voxels are magnitudes", lambda array: np.abs(array).astype(np.float32))


def arg_max(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A label with an axis of classes becomes one of values: the class that is largest."""
    if len(finding.found or ()) != 4 or not finding.files[0].startswith("labelsTr"):
        return None

    def how(array: np.ndarray) -> np.ndarray:
        return volumes.as_labels(array.argmax(-1))

    return _step(draft, finding, f"the largest of {finding.found[3]} classes", how)


def split_channels(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """An image with an axis of channels becomes one file for each, where so many are declared."""
    count = finding.found[3] if len(finding.found or ()) == 4 else 0
    (case, name) = (finding.cases[0], finding.files[0]) if len(finding.files) == 1 else ("", "")
    if not name.startswith("imagesTr") or not draft.has(name) or count != len(draft.layout.channels):
        return None
    names = [f"imagesTr/{case}_{number:04d}{draft.ending}" for number in range(count)]
    if any(draft.has(other) for other in names if other != name):
        return None

    def act() -> None:
        volume = volumes.read(draft.folder / name)
        for number, other in enumerate(names):
            volumes.write(draft.folder / other, Volume(volume.array[..., number], volume.affine))

    return Step(f"{name} is split into {count} channels", tuple(names), act)


def plain_picture(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Colours that say nothing go: opacity of 255 everywhere, a palette's colours, three equal colours of a label."""
    files = [name for name in finding.files if draft.has(name)]
    if len(files) != 1:
        return None
    name = files[0]
    picture, array = pictures.read(draft.folder / name)
    if array is None:
        return None
    if picture.colour == "palette" and name.startswith("labelsTr"):
        return _step(draft, finding, "indices are stored as grey values", lambda found: found)
    if picture.colour not in ("grey with alpha", "RGB", "RGBA"):
        return None
    has_alpha = picture.colour != "RGB"
    if has_alpha and not (array[..., -1] == 255).all():
        return None
    colours = array[..., :-1] if has_alpha else array
    wanted = 1 if name.startswith("labelsTr") or len(draft.layout.channels) == 1 else len(draft.layout.channels)
    if wanted == 1 and (colours == colours[..., :1]).all():
        return _step(draft, finding, "stored as grey", lambda _found: colours[..., 0].T)
    if has_alpha and wanted == colours.shape[-1]:
        return _step(draft, finding, "opacity, which is full, is left out", lambda _found: colours)
    return None


def divide_257(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """16 bits that were 8 become 8 again."""
    if not finding.found or isinstance(finding.found, str | int):
        return None
    return _step(draft, finding, f"values are divided by {SCALED}", lambda array: volumes.as_labels(array // SCALED))

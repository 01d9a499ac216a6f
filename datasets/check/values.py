"""What voxels hold: images that are no images, labels that are not what dataset.json declares."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umamba_seg.datasets.check import pictures
from umamba_seg.datasets.check.facts import CaseFacts, FileFacts
from umamba_seg.datasets.findings import Finding, Severity

LIMIT_SHARE = 1e-4
ROUNDING = 0.01


def image_faults(case: CaseFacts, channels: Sequence[str], labels: Sequence[int]) -> Iterator[Finding]:
    """Faults of each channel of a case."""
    usable = {number: image for number, image in case.images.items() if _is_known(image)}
    for number, image in usable.items():
        name = channels[number] if number < len(channels) else str(number)
        where: dict[str, Any] = {"cases": (case.case,), "files": (image.name,)}
        if image.nonfinite:
            message = f"{image.nonfinite} voxels are NaN or infinite"
            yield Finding(
                "image-nonfinite", "error", message, **where, found=image.nonfinite,
                nnunet="reads 0 in their place, and says nothing",
            )  # fmt: skip
        if image.minimum == image.maximum:
            severity: Severity = "error" if len(case.images) == 1 else "warning"
            yield Finding("image-empty", severity, f"every voxel is {image.minimum:g}", **where, found=image.minimum)
            continue
        if image.top_share > LIMIT_SHARE and image.kind in ("i2", "int16"):
            message = f"{100 * image.top_share:.2g} % of the voxels are at the limit of {image.kind}"
            yield Finding("image-overflow", "warning", message, **where, found=image.top_share)
        if name == "CT" and image.minimum >= -50:
            hint = "; the offset of -1024 may be missing" if image.maximum > 1000 else ""
            message = f"a CT from {image.minimum:g} to {image.maximum:g}: Hounsfield units begin near -1000{hint}"
            yield Finding("ct-units", "warning", message, **where, found=[image.minimum, image.maximum])
        whole = float(image.minimum).is_integer() and float(image.maximum).is_integer()
        if whole and image.minimum == 0 and 0 < image.maximum <= max(labels, default=0) and image.kind.endswith("1"):
            yield Finding("image-is-label", "warning", "all its values are label values", **where)


def label_faults(case: CaseFacts, declared: Sequence[int], names: Mapping[int, str]) -> Iterator[Finding]:
    """Faults of a case's label."""
    label = case.label
    if label is None or not _is_known(label):
        return
    where: dict[str, Any] = {"cases": (case.case,), "files": (label.name,)}
    if label.nonfinite:
        message = f"{label.nonfinite} voxels are NaN or infinite"
        yield Finding(
            "label-nonfinite", "error", message, **where, found=label.nonfinite, nnunet="reads background there"
        )  # fmt: skip
    fractions = {value: count for value, count in label.values.items() if not value.is_integer()}
    if fractions:
        noise = all(abs(value - round(value)) < ROUNDING for value in fractions)
        share = sum(fractions.values()) / max(sum(label.values.values()), 1)
        cause = "rounding noise" if noise else "edges were interpolated" if len(fractions) > 3 else "scaled values"
        shown = ", ".join(f"{value:g}" for value in sorted(fractions)[:5])
        message = f"{100 * share:.2g} % of the voxels are no integers: {shown}; {cause}"
        yield Finding("label-noninteger", "error", message, **where, found=sorted(fractions)[:20], mend=_way(noise))
    whole = {int(value): count for value, count in label.values.items() if value.is_integer()}
    negative = {value: count for value, count in whole.items() if value < 0}
    if negative:
        hints = [f"{value} may be {value + 256}, stored as int8" for value in negative if label.kind in ("i1", "int8")]
        message = f"negative values: {_counts(negative)}{'; ' + hints[0] if hints else ''}"
        yield Finding("label-negative", "error", message, **where, found=negative)
    strange = {value: count for value, count in whole.items() if value > 0 and value not in declared}
    if strange and not pictures.is_told(label, declared):
        is_mask = set(whole) <= {0, 255}
        hint = "; a mask of 0 and 255" if is_mask else ""
        message = f"{_counts(strange)}; dataset.json declares {_range(declared)}{hint}"
        yield Finding(
            "label-undeclared", "error", message, **where, expected=sorted(declared), found=strange,
            mend="store 1 for 255" if is_mask else "add the value to labels, or change it in the file",
        )  # fmt: skip
    if set(whole) == {0} and not fractions:
        yield Finding("label-empty", "warning", "it has background only", **where, nnunet="says nothing")


def _is_known(file: FileFacts) -> bool:
    return not file.fault and bool(file.digest) and not file.is_coloured and not file.kind.startswith("c")


def _way(is_noise: bool) -> str:
    return (
        "round to the nearest integer" if is_noise else "export the label again, with nearest-neighbour interpolation"
    )


def _counts(values: Mapping[int, int]) -> str:
    shown = ", ".join(f"value {value} in {count} voxels" for value, count in list(values.items())[:5])
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _range(values: Sequence[int]) -> str:
    ordered = sorted(values)
    if ordered and ordered == list(range(ordered[0], ordered[-1] + 1)) and len(ordered) > 2:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))

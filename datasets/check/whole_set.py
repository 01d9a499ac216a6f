"""What shows only when all cases are looked at: outliers, doubles, classes that nobody has, folds."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umamba_seg.datasets.check.facts import AIR_SHARE, CaseFacts, FileFacts
from umamba_seg.datasets.findings import Finding

OUTLIER, MOST_MM = 4.0, 50.0
FEW_CASES, FOLDS = 3, 5
TINY, USUAL = 3, 10
UNITS = {1: "metres", 3: "micrometres"}
CT_LOOKS = -900.0
LARGE, FAR_BEYOND = 1e7, 100.0  # some MR is stored at 1e6 beside cases at 1e3


def faults(
    cases: Sequence[CaseFacts], channels: Sequence[str], classes: Mapping[int, str], has_ignore: int | None
) -> Iterator[Finding]:
    """All of them."""
    yield from _spacing(cases)
    yield from _dimensions(cases)
    yield from _doubles(cases)
    yield from _classes(cases, classes, has_ignore)
    yield from _outside(cases)
    yield from _ct_by_values(cases, channels)
    yield from _beyond(cases)
    if 0 < len(cases) < FOLDS:
        message = f"{len(cases)} cases are too few for nnU-Net's {FOLDS} folds"
        yield Finding(
            "few-cases", "warning", message, found=len(cases), mend="train on  all, or umamba splits --folds N"
        )


def _first_images(cases: Sequence[CaseFacts]) -> dict[str, FileFacts]:
    return {case.case: case.images[0] for case in cases if 0 in case.images and not case.images[0].fault}


def _spacing(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    images = {name: image for name, image in _first_images(cases).items() if len(image.space) == 3}
    if len(images) < 3:
        return
    medians = [statistics.median(image.spacing[axis] for image in images.values()) for axis in range(3)]
    for name, image in images.items():
        where: dict[str, Any] = {"cases": (name,), "files": (image.name,)}
        ratios = [a / m if m else 1.0 for a, m in zip(image.spacing, medians, strict=True)]
        if image.units in UNITS:
            yield Finding("spacing-outlier", "warning", f"its header counts in {UNITS[image.units]}", **where)
        elif max(max(r, 1 / max(r, 1e-9)) for r in ratios) >= OUTLIER or max(image.spacing) > MOST_MM:
            shown = "×".join(f"{x:.3g}" for x in image.spacing)
            usual = "×".join(f"{x:.3g}" for x in medians)
            message = f"spacing {shown} mm, where the median is {usual}"
            yield Finding("spacing-outlier", "warning", message, **where, expected=medians, found=list(image.spacing))


def _dimensions(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    dims = {name: len(image.space) for name, image in _first_images(cases).items() if len(image.space) <= 3}
    flat = tuple(sorted(name for name, count in dims.items() if count == 2))
    if flat and len(flat) < len(dims):
        yield Finding("wrong-dimension", "error", "a 2D image among 3D ones", cases=flat, nnunet="says nothing")


def _doubles(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    images, labels = defaultdict(set), defaultdict(set)
    for case in cases:
        for image in case.images.values():
            if image.digest and image.minimum != image.maximum:
                images[image.digest].add(case.case)
        if case.label is not None and case.label.digest and len(case.label.values) > 1:
            labels[case.label.digest].add(case.case)
    for code, what, found in (("duplicate-image", "images", images), ("duplicate-label", "labels", labels)):
        for names in found.values():
            if len(names) > 1 and not (code == "duplicate-label" and names in images.values()):
                message = f"the {what} of {' and '.join(sorted(names))} have the same voxels"
                yield Finding(code, "warning", message, cases=tuple(sorted(names)), nnunet="says nothing")


def _classes(cases: Sequence[CaseFacts], classes: Mapping[int, str], ignore: int | None) -> Iterator[Finding]:
    known = [case for case in cases if case.label is not None and not case.label.fault and case.label.values]
    if not known:
        return
    if all(not any(value > 0 for value in case.label.values) for case in known if case.label is not None):
        yield Finding(
            "label-empty", "error", "no case has any label but background", mend="look at the export of labels"
        )
        return
    for value, name in classes.items():
        if value in (0, ignore):
            continue
        counts = {c.case: c.label.values.get(float(value), 0) for c in known if c.label is not None}
        having = {case: count for case, count in counts.items() if count}
        if len(having) < min(FEW_CASES, len(known)):
            who = f"only in {', '.join(having)}" if having else "in no case"
            yield Finding("class-absent", "warning", f"class {name} ({value}) is {who}", found=len(having))
            continue
        if statistics.median(having.values()) >= USUAL:
            for case, count in having.items():
                if count <= TINY:
                    message = f"class {name} ({value}) has {count} voxels"
                    yield Finding("label-tiny", "warning", message, cases=(case,), found=count)


def _outside(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    for number in sorted({number for case in cases for number in case.images}):
        shares = {c.case: c.label.outside[number] for c in cases if c.label is not None and number in c.label.outside}
        if len(shares) < 3 or statistics.median(shares.values()) >= 0.5:
            continue
        for case, share in shares.items():
            if share > AIR_SHARE:
                message = f"{100 * share:.0f} % of the labelled voxels are air in the image: the label may be another's"
                yield Finding("label-outside", "warning", message, cases=(case,), found=share, nnunet="says nothing")


def _beyond(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Values far beyond those of the other cases, as padding with a type's maximum leaves them."""
    for number in sorted({number for case in cases for number in case.images}):
        largest = {
            c.case: max(abs(c.images[number].minimum), abs(c.images[number].maximum))
            for c in cases
            if number in c.images and c.images[number].digest and not c.images[number].fault
        }
        usual = statistics.median(largest.values()) if largest else 0.0
        for case, value in largest.items():
            if value > LARGE and value > FAR_BEYOND * usual:
                message = f"values reach {value:.3g} in channel {number}; {usual:.3g} is usual in this set"
                yield Finding("image-overflow", "warning", message, cases=(case,), expected=usual, found=value)


def _ct_by_values(cases: Sequence[CaseFacts], channels: Sequence[str]) -> Iterator[Finding]:
    for number, name in enumerate(channels):
        lows = [c.images[number].minimum for c in cases if number in c.images and not c.images[number].fault]
        if name != "CT" and len(lows) > 2 and sum(low <= CT_LOOKS for low in lows) > 0.8 * len(lows):
            message = f"channel {name!r} holds values like CT's, but only the name CT gets CT's normalisation"
            yield Finding("ct-name", "warning", message, files=("dataset.json",), expected="CT", found=name)


def split_faults(file: Path, cases: Sequence[str], patients: Mapping[str, str]) -> Iterator[Finding]:
    """Faults of splits_final.json, and patients in training and validation."""
    where: dict[str, Any] = {"files": (file.name,)}
    try:
        folds = json.loads(file.read_bytes())
        folds = [(set(fold["train"]), set(fold["val"])) for fold in folds]
    except (OSError, ValueError, TypeError, KeyError):
        yield Finding("splits", "error", 'it is no list of {"train": […], "val": […]}', **where)
        return
    known = set(cases)
    for number, (train, val) in enumerate(folds):
        if strange := sorted((train | val) - known):
            yield Finding(
                "splits", "error", f"fold {number} names cases that are not there", cases=tuple(strange), **where
            )
        if both := sorted(train & val):
            message = f"fold {number} trains and validates on the same cases"
            yield Finding("splits", "error", message, cases=tuple(both), **where, nnunet="writes one line to a log")
        shared = sorted({patients.get(c, c) for c in train} & {patients.get(c, c) for c in val} - (train & val))
        if shared:
            message = f"fold {number} has patients in training and validation: {', '.join(shared[:5])}"
            yield Finding("patient-leak", "error", message, **where, mend="umamba splits --group")
    never = sorted(known - {case for _, val in folds for case in val})
    if never:
        yield Finding("splits", "warning", "no fold validates these cases", cases=tuple(never), **where)

"""Pictures as pictures: colours that nnU-Net reads otherwise than they were meant, loss, spacing that is not told."""

from collections.abc import Iterator, Mapping, Sequence

from umamba_seg.datasets.check.facts import CaseFacts, FileFacts
from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.pictures import CHANNELS, is_picture, side_car

SCALED = 257  # 8 bits stored as 16: 255 becomes 65535
BLUR, FEW_STRAYS = 24, 0.5  # grey levels that JPEG strays from a flat area; share of voxels it leaves as they were


def faults(case: CaseFacts, channels: Sequence[str], declared: Sequence[int]) -> Iterator[Finding]:
    """What is wrong with the pictures of a case as pictures."""
    images = {number: image for number, image in case.images.items() if not image.fault and is_picture(image.path)}
    yield from _image_colours(case.case, images, channels)
    for image in images.values():
        if image.is_lossy:
            message = "its data are compressed with loss, as JPEG does; fine grey levels are gone"
            yield Finding("lossy", "warning", message, (case.case,), (image.name,))
    label = case.label
    if label is not None and not label.fault and is_picture(label.path):
        yield from _label_faults(case.case, label, declared)
    yield from _spacing(case)


def _image_colours(case: str, images: Mapping[int, FileFacts], channels: Sequence[str]) -> Iterator[Finding]:
    found = {number: CHANNELS.get(image.colour, 0) for number, image in images.items()}
    if not channels or not found or (sum(found.values()) == len(channels) and len(set(found.values())) == 1):
        return
    if set(found.values()) == {1} and (len(found) > 1 or len(channels) not in (3, 4)):
        return  # files of missing channels are told by their names
    files = tuple(image.name for image in images.values())
    what = ", ".join(sorted({image.colour for image in images.values()}))
    message = f"it is {what}: {sum(found.values())} channels, where dataset.json declares {len(channels)}"
    yield Finding(
        "png-mode", "error", message, (case,), files, len(channels), sum(found.values()),
        nnunet="stops without naming the cause", mend="store all images in the colours that dataset.json declares",
    )  # fmt: skip


def _label_faults(case: str, label: FileFacts, declared: Sequence[int]) -> Iterator[Finding]:
    files = (label.name,)
    if label.is_lossy:
        yield Finding(
            "lossy", "error", "its data are compressed with loss, as JPEG does: values are not those that were drawn",
            (case,), files, nnunet="reads all grey levels as labels", mend="export the label again, as PNG",
        )  # fmt: skip
    elif label.colour != "grey":
        is_palette = label.colour == "palette"
        what = (
            "a palette index image, of which nnU-Net reads the colours" if is_palette else f"{label.colour}, not grey"
        )
        yield Finding(
            "png-mode", "error", f"the label is {what}", (case,), files, "grey", label.colour,
            nnunet="stops without naming the cause",
            mend="store the indices as grey values" if is_palette else "store one grey value for each class",
        )  # fmt: skip
    elif is_scaled(label, declared):
        yield Finding(
            "png-mode", "error", f"the label has 16 bits and its values are multiples of {SCALED}: 8 bits were scaled",
            (case,), files, found=sorted(label.values)[:20], mend=f"divide by {SCALED}",
        )  # fmt: skip
    elif is_blurred(label, declared):
        shown = ", ".join(f"{value:g}" for value in sorted(label.values)[:6])
        message = f"grey levels lie around the label values ({shown} …): it was compressed with loss before"
        yield Finding("lossy", "error", message, (case,), files, mend="export the label again, as PNG")


def is_scaled(label: FileFacts, declared: Sequence[int]) -> bool:
    """Whether a label's values were multiplied when its 8 bits became 16."""
    strange = set(label.values) - set(declared)
    return label.kind == "uint16" and bool(strange) and all(value % SCALED == 0 for value in label.values)


def is_blurred(label: FileFacts, declared: Sequence[int]) -> bool:
    """Whether a label's values stray around few levels, as JPEG leaves a flat area."""
    total, count = sum(label.values.values()), len(label.values)
    if not is_picture(label.path) or not total or count <= len(declared) + 2 or set(label.values) <= set(declared):
        return False
    levels = sorted(label.values, key=lambda value: -label.values[value])[: max(2, len(declared))]
    close = sum(n for value, n in label.values.items() if min(abs(value - level) for level in levels) <= BLUR)
    return close > 0.9 * total and sum(label.values[level] for level in levels) > FEW_STRAYS * total


def is_told(label: FileFacts, declared: Sequence[int]) -> bool:
    """Whether the faults of a label's values are faults of its picture."""
    return label.is_lossy or (is_picture(label.path) and (is_scaled(label, declared) or is_blurred(label, declared)))


def _spacing(case: CaseFacts) -> Iterator[Finding]:
    files = [file for file in (case.images.get(0), case.label) if file is not None and not file.fault]
    missing = [file for file in files if file.side_car == "is missing"]
    names = {id(file): f"{file.path.parent.name}/{side_car(file.path).name}" for file in files}
    wanted = '{"spacing": [z, y, x]}'
    if missing:
        is_half = len(missing) < len(files)
        message = f"{' and '.join(names[id(x)] for x in missing)} with the spacing is missing"
        yield Finding(
            "tiff-spacing", "error" if is_half else "warning", message, (case.case,),
            tuple(names[id(x)] for x in missing), wanted, nnunet="takes 1 mm along each axis",
            mend=f"write {wanted} in mm",
        )  # fmt: skip
    for file in files:
        if file.side_car and file not in missing:
            message = f"{names[id(file)]} {file.side_car}: three lengths above 0 are needed, z, y and x in mm"
            yield Finding("tiff-spacing", "error", message, (case.case,), (names[id(file)],), wanted)

"""Images and labels from anywhere as a raw data set of nnU-Net: paired, named, described."""

import difflib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umamba_seg.datasets import pictures, volumes
from umamba_seg.datasets.nifti import UnreadableError
from umamba_seg.errors import DataError, UsageError
from umamba_seg.files import told_when_full, write_text
from umamba_seg.progress import OnProgress, Progress, ignore

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cases with their files.

    Args:
        ending: Of all files.
        images: By case, the file of each channel, in order.
        labels: By case.
        split: How many channels a file holds along its fourth axis, where that is to be split; 0 where not.
        tests: Images without labels, by case.
    """

    ending: str
    images: Mapping[str, Sequence[Path]]
    labels: Mapping[str, Path]
    split: int = 0
    tests: Mapping[str, Sequence[Path]] = field(default_factory=dict)


def pair(images: Path, labels: Path, *, channels: int = 1, pattern: str | None = None) -> Pairs:
    """Find out which files belong together.

    Args:
        images: Folder of images, one file for each channel: `case.nii.gz`, or `case_0000.nii.gz`, `case_0001.nii.gz`.
        labels: Folder of label maps, `case.nii.gz`.
        channels: How many each case has.
        pattern: An expression on the names without ending; its first group is the case, its second the channel.
    """
    ending = _ending(images, labels)
    by_case: dict[str, dict[int, Path]] = {}
    for path in _files(images, ending):
        case, channel = _split(path, ending, pattern, channels)
        other = by_case.setdefault(case, {}).setdefault(channel, path)
        if other != path:
            raise DataError(
                f"{other.name} and {path.name} are both channel {channel} of {case}", where=str(images),
                how=["--pattern tells case and channel apart"], code="same-case",
            )  # fmt: skip
    label_of = {_split(path, ending, pattern, 1)[0]: path for path in _files(labels, ending)}
    _check_pairs(by_case, label_of, channels, images, labels)
    return Pairs(
        ending, {case: [found[i] for i in range(channels)] for case, found in sorted(by_case.items())}, label_of
    )


def describe(
    pairs: Pairs, channels: Sequence[str], labels: Mapping[str, int | list[int]], order: Sequence[int] | None = None
) -> dict[str, Any]:
    """dataset.json of the pairs."""
    content: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(pairs.images),
        "file_ending": pairs.ending,
    }
    if order is not None:
        content["regions_class_order"] = list(order)
    return content


def by_name(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Labels as name and value, where older formats have value and name."""
    are_numbers = all(re.fullmatch(r"-?\d+", str(name)) for name in labels)
    if labels and are_numbers and all(isinstance(x, str) for x in labels.values()):
        return {str(name): int(value) for value, name in labels.items()}
    return dict(labels)


def class_order(regions: Mapping[str, int | list[int]]) -> list[int]:
    """The value that each region is written with: one of its own that no later region has."""
    values = [value if isinstance(value, list) else [value] for value in regions.values()]
    order: list[int] = []
    for place, mine in enumerate(values):
        later = {x for other in values[place + 1 :] for x in other}
        candidates = [x for x in mine if x not in order]
        own = [x for x in candidates if x not in later]
        order.append((own or candidates or [0])[0])
    return order


def build(
    folder: Path, pairs: Pairs, description: Mapping[str, Any], *, links: bool = False, report: OnProgress = ignore
) -> None:
    """Write a raw data set; it appears when it is complete.

    Args:
        folder: `nnUNet_raw/Dataset012_Liver`, which must not be there.
        pairs: What goes in.
        description: dataset.json.
        links: Link to the files instead of copying them.
        report: Told how far it is.
    """
    if folder.exists():
        raise UsageError(
            "a data set of this name is there", where=str(folder), how=["--id or --name another"], code="exists"
        )
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with told_when_full(folder):
            _fill(part, pairs, links, report)
            write_text(part / "dataset.json", json.dumps(description, indent=1))
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(part: Path, pairs: Pairs, links: bool, report: OnProgress) -> None:
    for name in ("imagesTr", "labelsTr", *(["imagesTs"] if pairs.tests else [])):
        (part / name).mkdir(parents=True)
    groups = [("imagesTr", case, files) for case, files in pairs.images.items()]
    groups += [("imagesTs", case, files) for case, files in pairs.tests.items()]
    for done, (name, case, files) in enumerate(groups, 1):
        targets = [part / f"{name}/{case}_{number:04d}{pairs.ending}" for number in range(pairs.split or len(files))]
        if pairs.split:
            _put_split(files[0], targets, links)
        else:
            for source, target in zip(files, targets, strict=True):
                _put(source, target, links)
        if name == "imagesTr":
            _put(pairs.labels[case], part / f"labelsTr/{case}{pairs.ending}", links)
        report(Progress("import", done, len(groups), "cases"))


def _put_split(source: Path, targets: Sequence[Path], links: bool) -> None:
    """One file for each step along the fourth axis; a file that has none is taken as it is."""
    try:
        volume = volumes.read(source)
    except UnreadableError as fault:
        raise DataError(str(fault), where=str(source), how=["fetch it again"], code="unreadable") from None
    if volume.array.ndim < 4 and len(targets) == 1:
        _put(source, targets[0], links)
        return
    if volume.array.ndim != 4 or volume.array.shape[3] != len(targets):
        shape = "×".join(map(str, volume.array.shape))
        what = f"it has {shape} voxels; a fourth axis of {len(targets)}, one for each channel, was expected"
        raise DataError(what, where=str(source), how=["--channel names each channel"], code="channels")
    for number, target in enumerate(targets):
        volumes.write(target, volumes.Volume(volume.array[..., number], volume.affine))


def _put(source: Path, target: Path, links: bool) -> None:
    if links:
        target.symlink_to(source.resolve())
    else:
        shutil.copy2(source, target)
    side_car, place = pictures.side_car(source), pictures.side_car(target)
    if source.name.lower().endswith(pictures.TIFF) and side_car.is_file() and not place.exists():
        shutil.copy2(side_car, place)


def _ending(*folders: Path) -> str:
    """The one ending that the files of all folders have."""
    found: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError("there is no such folder", where=str(folder), code="no-folder")
        for path in folder.iterdir():
            ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), None)
            if ending is not None and not path.name.startswith("."):
                found.setdefault(ending, str(path))
    if len(found) != 1:
        what = (
            f"files end in {' and '.join(sorted(found))}" if found else f"no file ends in one of {', '.join(ENDINGS)}"
        )
        how = ["convert them to one format: nnU-Net needs one ending for images and labels"]
        raise DataError(what, where=", ".join(map(str, folders)), how=how, code="file-ending")
    return next(iter(found))


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.name.lower().endswith(ending) and not x.name.startswith("."))


def _split(path: Path, ending: str, pattern: str | None, channels: int) -> tuple[str, int]:
    stem = path.name[: -len(ending)]
    if pattern is not None:
        found = re.fullmatch(pattern, stem)
        if found is None:
            raise DataError(f"{stem!r} does not match {pattern!r}", where=str(path), code="pattern")
        return found[1], int(found[2]) if found.re.groups > 1 and found[2] else 0
    numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
    if numbered and int(numbered[2]) < max(channels, 1):
        return numbered[1], int(numbered[2])
    return stem, 0


def _check_pairs(
    images: Mapping[str, Mapping[int, Path]],
    labels: Mapping[str, Path],
    channels: int,
    folder: Path,
    label_folder: Path,
) -> None:
    for case, found in sorted(images.items()):
        missing = [i for i in range(channels) if i not in found]
        if missing or len(found) != channels:
            what = f"case {case} has channels {sorted(found)}, not 0 to {channels - 1}"
            raise DataError(what, where=str(folder), how=["--channel names each channel"], code="channels")
    if without := sorted(set(images) - set(labels)):
        near = difflib.get_close_matches(without[0], labels, n=1)
        hint = f"; the nearest is {labels[near[0]].name}" if near else ""
        how = ["--pattern tells how names and cases belong together"]
        raise DataError(
            f"{len(without)} images have no label, first {without[0]}{hint}", where=str(label_folder), how=how,
            code="label-missing",
        )  # fmt: skip
    if orphans := sorted(set(labels) - set(images)):
        raise DataError(
            f"{len(orphans)} labels have no image, first {orphans[0]}", where=str(folder),
            how=["take them out, or --pattern"], code="label-orphan",
        )  # fmt: skip

"""Mending where voxels lie."""

from typing import Any

import numpy as np

from umamba_seg.datasets import nifti, pictures, volumes
from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.fix import grids
from umamba_seg.datasets.fix.draft import Draft
from umamba_seg.datasets.fix.remedy import Step
from umamba_seg.datasets.volumes import Volume
from umamba_seg.files import write_text


def copy_geometry(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The label is said to lie where its image lies; its voxels stay."""
    image, label = finding.files
    if not draft.has(image, label):
        return None
    like = draft.facts(image)
    if like.fault or draft.facts(label).space != like.space:
        return None
    what = f"{label} lies where {image} lies; its voxels stay as they are"
    if pictures.is_picture(draft.folder / label):
        return Step(what, (label,), lambda: _copy_side_car(draft, image, label))

    def act() -> None:
        volumes.write(draft.folder / label, Volume(volumes.read(draft.folder / label).array, like.affine))

    return Step(what, (label,), act)


def _copy_side_car(draft: Draft, image: str, label: str) -> None:
    source, target = (pictures.side_car(draft.folder / name) for name in (image, label))
    write_text(target, source.read_text())


def reorient(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A label with swapped or turned axes that lies on its image all the same is stored as the image is."""
    image, label = finding.files
    if not draft.has(image, label) or pictures.is_picture(draft.folder / label):
        return None
    like, volume = draft.facts(image), volumes.read(draft.folder / label)
    found = grids.reordered(volume, like.space, like.affine)
    if found is None:
        return None
    what = f"{label} is stored in the order of axes that {image} has; no voxel is lost"
    return Step(what, (label,), lambda: volumes.write(draft.folder / label, Volume(found, like.affine)))


def resample_label(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """The label is brought to its image's grid, each voxel from the nearest, as both headers have it."""
    image, label = finding.files
    if not draft.has(image, label) or pictures.is_picture(draft.folder / label):
        return None
    like, own = draft.facts(image), draft.facts(label)
    is_moved = finding.code != "shape-mismatch"  # then the user says that the header is right
    if like.fault or own.fault or len(own.space) != 3 or len(like.space) != 3:
        return None
    if not is_moved and not grids.covers_the_same(own.space, own.affine, like.space, like.affine):
        return None
    return _resampled(draft, label, like.space, like.affine, f"the grid of {image}")


def resample_channel(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A channel is brought to the grid of channel 0."""
    image, first = finding.files
    if not draft.has(image, first) or pictures.is_picture(draft.folder / image):
        return None
    like, own = draft.facts(first), draft.facts(image)
    if like.fault or own.fault or len(own.space) != 3 or len(like.space) != 3:
        return None
    return _resampled(draft, image, like.space, like.affine, f"the grid of {first}")


def resample_upright(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A sheared volume is brought to a grid with right angles."""
    (name,) = finding.files
    if not draft.has(name):
        return None
    own = draft.facts(name)
    if own.fault or len(own.space) != 3 or min(own.spacing) < 1e-6:
        return None
    return _resampled(draft, name, *grids.upright(own.space, own.affine), "a grid with right angles")


def _resampled(draft: Draft, name: str, shape: tuple[int, ...], affine: np.ndarray, onto: str) -> Step:
    is_label = name.startswith("labels")

    def act() -> None:
        volume = volumes.read(draft.folder / name)
        flat = Volume(volume.array.reshape(volume.array.shape[:3]), volume.affine)
        volumes.write(draft.folder / name, Volume(grids.resampled(flat, shape, affine, is_label=is_label), affine))

    how = "each voxel from the nearest" if is_label else "linearly"
    return Step(f"{name} is resampled onto {onto}, {how}", (name,), act)


def keep_sform(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Both forms say what sform says."""
    return _keep(draft, finding, "sform")


def keep_qform(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Both forms say what qform says."""
    return _keep(draft, finding, "qform")


def _keep(draft: Draft, finding: Finding, form: str) -> Step | None:
    (name,) = finding.files
    if not draft.has(name) or not name.lower().endswith(volumes.NIFTI):
        return None
    header = nifti.read_header(draft.folder / name)
    affine = header.sform if form == "sform" else header.qform
    if affine is None:
        return None

    def act() -> None:
        volumes.write(draft.folder / name, Volume(volumes.read(draft.folder / name).array, affine))

    return Step(f"{name}: both forms are the {form}", (name,), act)


def give_spacing(draft: Draft, finding: Finding, spacing: list[float]) -> Step | None:
    """The spacing x, y, z in mm; directions and origin stay where they make sense."""
    (name,) = finding.files
    if not draft.has(name) or not name.lower().endswith(volumes.NIFTI) or len(spacing) != 3:
        return None

    def act() -> None:
        volume = volumes.read(draft.folder / name)
        volumes.write(draft.folder / name, Volume(volume.array, _with_spacing(volume.affine, spacing)))

    return Step(f"{name} has the spacing {'×'.join(f'{x:g}' for x in spacing)} mm", (name,), act)


def _with_spacing(affine: np.ndarray, spacing: list[float]) -> np.ndarray:
    made = np.diag([*spacing, 1.0])
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if np.isfinite(affine[:3, :3]).all() and (lengths > 1e-6).all():
        made[:3, :3] = affine[:3, :3] / lengths * spacing
    if np.isfinite(affine[:3, 3]).all():
        made[:3, 3] = affine[:3, 3]
    return made


def to_millimetres(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """A header that counts in metres or micrometres, with its label, counts in mm."""
    factors = {1: 1000.0, 3: 0.001}
    names = [name for case in finding.cases for name in draft.files_of(case) if name.lower().endswith(volumes.NIFTI)]
    found = {name: factors[unit] for name in names if (unit := draft.facts(name).units) in factors}
    if not found:
        return None

    def act() -> None:
        for name, factor in found.items():
            volume = volumes.read(draft.folder / name)
            scale = np.diag([factor, factor, factor, 1.0])
            volumes.write(draft.folder / name, Volume(volume.array, scale @ volume.affine))

    return Step(f"{', '.join(found)}: lengths are in mm", tuple(found), act)


def write_side_car(draft: Draft, finding: Finding, spacing: list[float]) -> Step | None:
    """The spacing z, y, x in mm of TIFF volumes that have none."""
    if len(spacing) != 3:
        return None
    text = f'{{"spacing": {spacing}}}'

    def act() -> None:
        for name in finding.files:
            write_text(draft.folder / name, text)

    return Step(f"{', '.join(finding.files)}: {text}", finding.files, act)


def drop_trailing_axes(draft: Draft, finding: Finding, _: Any) -> Step | None:
    """Trailing axes of 1 go."""
    (name, *more) = finding.files or ("",)
    if more or not name or not draft.has(name):
        return None
    own = draft.facts(name)
    if own.fault or len(own.space) != 3 or len(own.shape) == 3:
        return None

    def act() -> None:
        volume = volumes.read(draft.folder / name)
        volumes.write(draft.folder / name, Volume(volume.array.reshape(own.space), volume.affine))

    return Step(f"{name} has the axes {'×'.join(map(str, own.space))}", (name,), act)

"""Phantoms: made-up CT and MR scans of an abdomen with labels, for the demo and for tests.

Anatomy is a list of parts painted one over the other. A part is an ellipsoid swept along a segment; it ends where

    r(p) = min over t in [0, 1] of |R (p - c - t d) / s| = 1

with centre c, sweep d, radii s and a rotation R in the axial plane. Points p run from -1 to 1 across the field of view
along (z, y, x), bent by a smooth random field so that nothing stays an ellipsoid; x points to the patient's left, y to
the back, z to the head. The finished picture is blurred (partial volume) and gets the noise of its modality.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from umamba_seg.errors import DataError, UsageError

Vector = tuple[float, float, float]  # z, y, x

LABELS = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "vessel": 4, "lesion": 5}
ORGANS = ("liver", "spleen", "kidney")
"""Large classes that a small network learns in minutes."""
HARD = ("vessel", "lesion")
"""Thin and small classes, made to be missed in part."""

SHAPE = (28, 64, 64)
SPACING = (3.0, 1.5, 1.5)  # a body of a hare's size, where tolerances in mm mean what they mean in a real scan
SMALLEST = 12  # voxels along an axis
FEWEST = 4  # voxels of a class in a case
ATTEMPTS = 50

# Hounsfield units after contrast agent, and arbitrary units of a T1-like scan with suppressed fat. Noise and spread
# make liver, spleen and gut overlap on purpose, and kidneys and great vessels.
TISSUES = {
    "ct": {
        "air": -1000, "lung": -850, "fat": -100, "skin": 0, "muscle": 60, "bone": 500, "marrow": 190, "cord": 35,
        "gut": 95, "fluid": 15, "liver": 105, "spleen": 128, "kidney": 205, "medulla": 165, "vessel": 190, "lesion": 35,
    },
    "mr": {
        "air": 0, "lung": 40, "fat": 150, "skin": 300, "muscle": 260, "bone": 60, "marrow": 210, "cord": 220,
        "gut": 380, "fluid": 90, "liver": 430, "spleen": 495, "kidney": 565, "medulla": 510, "vessel": 660,
        "lesion": 240,
    },
}  # fmt: skip
SPREAD = {"ct": 6.0, "mr": 25.0}  # standard deviation of a part's value over the cases
CHANNELS = {"ct": "CT", "mr": "MR"}  # nnU-Net normalises by this name


@dataclass(frozen=True, slots=True)
class Phantom:
    """A made-up scan. Arrays are (z, y, x), `spacing` is millimetres per voxel in the same order."""

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing: Vector


def make_phantom(
    seed: int | Sequence[int],
    *,
    modality: str = "ct",
    shape: Sequence[int] = SHAPE,
    spacing: Sequence[float] = SPACING,
) -> Phantom:
    """A made-up abdominal scan that holds every class of `LABELS`.

    Args:
        seed: One number or several; the same seed gives the same voxels.
        modality: "ct" (Hounsfield units) or "mr" (arbitrary units with a bias field and a gain of its own).
        shape: Voxels along (z, y, x), at least 12 each.
        spacing: Millimetres per voxel along (z, y, x). The anatomy fills the field of view whatever its size.

    Raises:
        UsageError: If an argument has no meaning, or `shape` is too small to hold every class.
    """
    size, mm = _check_grid(shape, spacing)
    _check_modality(modality)
    rng = _generator(seed)
    for _ in range(ATTEMPTS):
        canvas = _Canvas(_points(rng, size), modality, rng)
        _paint_body(canvas)
        if np.bincount(canvas.labels.ravel(), minlength=len(LABELS)).min() >= FEWEST:
            return Phantom(_acquire(canvas.image, modality, rng), canvas.labels, mm)
    raise UsageError(
        f"a phantom of {size} voxels cannot hold every class", how=("take a larger shape",), code="phantom-shape"
    )


def write_dataset(
    raw_folder: str | os.PathLike[str],
    *,
    cases: int,
    test_cases: int = 0,
    dataset_id: int = 900,
    name: str = "Phantoms",
    seed: int = 0,
    modality: str = "ct",
    shape: Sequence[int] = SHAPE,
    spacing: Sequence[float] = SPACING,
    on_case: Callable[[str], None] | None = None,
) -> Path:
    """Writes phantoms as an nnU-Net raw data set.

    Sizes and spacings differ from case to case by some percent. A case depends on `seed` and its own number alone, not
    on how many are written. The folder appears when it is complete; a call that stops earlier leaves nothing of it.

    Args:
        raw_folder: nnU-Net's folder of raw data sets; made if it is missing.
        cases: How many cases to write for training.
        test_cases: How many to write into `imagesTs` and `labelsTs`.
        dataset_id: Number of the data set, 1 to 999.
        name: Its name.
        seed: What makes these phantoms differ from those of another seed.
        modality: "ct" or "mr".
        shape: Typical voxels along (z, y, x).
        spacing: Typical millimetres per voxel along (z, y, x).
        on_case: Called with the name of each case once it is written.

    Returns:
        The folder of the data set, `raw_folder/Dataset900_Phantoms`.

    Raises:
        DataError: If the raw folder has a data set of that number.
        UsageError: If an argument has no meaning.
    """
    _check_grid(shape, spacing)
    _check_modality(modality)
    _generator(seed)
    _check_dataset(dataset_id, name, cases, test_cases)
    raw_folder = Path(raw_folder)
    raw_folder.mkdir(parents=True, exist_ok=True)
    _refuse_to_overwrite(raw_folder, dataset_id)

    with tempfile.TemporaryDirectory(prefix=".phantoms-", dir=raw_folder) as beside:
        folder = Path(beside) / f"Dataset{dataset_id:03d}_{name}"
        for split, case, key in _cases(cases, test_cases):
            rng = np.random.default_rng((seed, *key, 1))  # 1 and 2: zeros at the end of a seed would change nothing
            size, mm = _vary_grid(rng, shape, spacing)
            phantom = make_phantom((seed, *key, 2), modality=modality, shape=size, spacing=mm)
            _write_case(folder, split, case, phantom, *_placement(rng, phantom, modality))
            if on_case is not None:
                on_case(case)
        _write_json(folder, modality, cases)
        return folder.rename(raw_folder / folder.name)


def _check_grid(shape: Sequence[int], spacing: Sequence[float]) -> tuple[tuple[int, int, int], Vector]:
    if len(shape) != 3 or min(shape) < SMALLEST:
        what = f"shape must be three numbers of at least {SMALLEST} voxels, got {tuple(shape)}"
        raise UsageError(what, code="phantom-shape")
    if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
        raise UsageError(f"spacing must be three positive numbers, got {tuple(spacing)}", code="phantom-spacing")
    z, y, x = map(int, shape)
    return (z, y, x), _vector(spacing)


def _check_modality(modality: str) -> None:
    if modality not in TISSUES:
        known = " or ".join(map(repr, TISSUES))
        raise UsageError(f"modality must be {known}, got {modality!r}", code="phantom-modality")


def _generator(seed: int | Sequence[int]) -> Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise UsageError(f"seed must be whole numbers from 0, got {seed!r}", code="phantom-seed") from error


def _check_dataset(dataset_id: int, name: str, cases: int, test_cases: int) -> None:
    if not 1 <= dataset_id <= 999:
        raise UsageError(f"dataset_id must be from 1 to 999, got {dataset_id}", code="dataset-id")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"name must be letters, digits, - and _, got {name!r}", code="dataset-name")
    if cases < 1 or test_cases < 0:
        what = f"there must be at least 1 case and 0 test cases, got {cases} and {test_cases}"
        raise UsageError(what, code="phantom-cases")


def _refuse_to_overwrite(raw_folder: Path, dataset_id: int) -> None:
    found = next(raw_folder.glob(f"Dataset{dataset_id:03d}_*"), None)
    if found is not None:
        raise DataError(
            f"data set {dataset_id} exists and is not overwritten",
            where=str(found),
            how=("choose another number", "move the folder away"),
            code="dataset-exists",
        )


def _vector(values: ArrayLike) -> Vector:
    z, y, x = np.asarray(values, float).tolist()
    return z, y, x


def _turn(degrees: float) -> NDArray[np.float64]:
    """Rotation of the second axis into the third, (3, 3)."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing to paint.

    `core` is the tissue of its inner part, `looseness` scales how far place, size and tilt vary from case to case.
    """

    tissue: str
    centre: Vector
    radii: Vector
    tilt: float = 0.0  # degrees in the axial plane, from x to y
    sweep: Vector = (0.0, 0.0, 0.0)
    label: str = "background"
    core: str = ""
    looseness: float = 1.0


LONG = 4.0  # radius along z of what crosses the whole field of view
SIDES = (-1, 1)

WALL = (
    _Part("skin", (0, 0, 0), (LONG, 0.71, 0.91), looseness=0),
    _Part("fat", (0, 0, 0), (LONG, 0.68, 0.88), looseness=0),
    _Part("muscle", (0, 0, 0), (LONG, 0.60, 0.79), looseness=0.1),
    _Part("fat", (0, -0.05, 0), (LONG, 0.49, 0.70), looseness=0.1),
    *(_Part("muscle", (0, 0.48, 0.23 * side), (LONG, 0.10, 0.19), 12.0 * side, looseness=0.3) for side in SIDES),
    *(_Part("muscle", (-0.7, 0.28, 0.24 * side), (0.8, 0.11, 0.10), looseness=0.5) for side in SIDES),  # psoas
)
CAVITY = _Part("fat", (0, 0, 0), (LONG, 0.52, 0.69))  # within the ribs; organs stay inside
SPINE = (
    _Part("bone", (0, 0.29, 0), (LONG, 0.12, 0.15), core="marrow", looseness=0.2),
    _Part("bone", (0, 0.42, -0.18), (LONG, 0.035, 0.03), sweep=(0, 0, 0.36), looseness=0.2),
    _Part("bone", (0, 0.44, 0), (LONG, 0.08, 0.095), core="cord", looseness=0.2),
    _Part("bone", (0, 0.51, 0), (LONG, 0.03, 0.025), sweep=(0, 0.08, 0), looseness=0.2),
)
ORGAN_PARTS = (
    *(_Part("lung", (1.10, 0.10, 0.40 * side), (0.45, 0.37, 0.25)) for side in SIDES),
    _Part("gut", (0.35, -0.22, 0.34), (0.60, 0.19, 0.24), 25, core="fluid"),  # stomach
    _Part("spleen", (0.25, 0.11, 0.49), (0.85, 0.35, 0.22), 20, label="spleen"),
    _Part("liver", (0.25, 0.00, -0.37), (0.95, 0.42, 0.30), -8, label="liver"),
    _Part("liver", (0.45, -0.25, -0.05), (0.55, 0.17, 0.40), 8, label="liver"),
    _Part("fluid", (-0.10, -0.28, -0.20), (0.30, 0.10, 0.08), 20),  # gallbladder
    _Part("kidney", (-0.35, 0.25, -0.38), (0.70, 0.21, 0.18), -25, label="kidney", core="medulla"),
    _Part("kidney", (-0.35, 0.25, 0.36), (0.70, 0.21, 0.18), 25, label="kidney", core="medulla"),
    _Part("vessel", (0, 0.12, 0.07), (LONG, 0.06, 0.06), looseness=0.4),  # aorta
    _Part("vessel", (0, 0.10, -0.13), (LONG, 0.05, 0.07), looseness=0.4),  # vena cava
)


class _Canvas:
    """An image and its labels in the making, painted part by part on bent coordinates."""

    def __init__(self, points: NDArray[np.float32], modality: str, rng: Generator) -> None:
        shape = points.shape[1:]
        self.points, self.rng = points, rng  # points: (3, z, y, x)
        self.values, self.spread = TISSUES[modality], SPREAD[modality]
        self.image = np.full(shape, self.values["air"], np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self._voxel = 2 / np.array(shape)
        planes = [np.moveaxis(points[axis], axis, 0).reshape(n, -1) for axis, n in enumerate(shape)]
        self._reach = [(plane.min(axis=1), plane.max(axis=1)) for plane in planes]  # of every plane, along its own axis

    def paint(self, part: _Part, where: NDArray[np.bool_] | None = None) -> None:
        """Lays a part over what is there, with an edge one voxel wide; `where` keeps it to some voxels."""
        radii = np.maximum(part.radii, 0.75 * self._voxel)  # thinner parts would fall between the voxels
        box = self._box(part, radii)
        r = _radius(self.points[:, *box], part, radii)
        if where is not None:
            r[~where[box]] = np.inf
        width = (radii / self._voxel)[1:].min()  # voxels from r = 0 to r = 1
        for tissue, edge in ((part.tissue, 1.0), (part.core, 0.7)):
            if tissue:
                value = self.values[tissue] + self.spread * self.rng.standard_normal(dtype=np.float32)
                share = np.clip((edge - r) * width + 0.5, 0, 1)
                self.image[box] += share * (value - self.image[box])
        self.labels[box][r < 1] = LABELS[part.label]

    def _box(self, part: _Part, radii: NDArray[np.float64]) -> tuple[slice, ...]:
        """The planes along z, y, x that can meet the part."""
        ends = np.array([part.centre, np.add(part.centre, part.sweep)])
        margin = np.array([radii[0], radii[1:].max(), radii[1:].max()]) + self._voxel  # whatever the tilt
        met = []
        for (low, high), first, last in zip(self._reach, ends.min(0) - margin, ends.max(0) + margin, strict=True):
            planes = np.flatnonzero((high > first) & (low < last))
            met.append(slice(planes[0], planes[-1] + 1) if planes.size else slice(0))
        return tuple(met)


def _radius(points: NDArray[np.float32], part: _Part, radii: NDArray[np.float64]) -> NDArray[np.float32]:
    """r(p) of the module's formula, (z, y, x)."""
    to_unit = (_turn(part.tilt) / radii[:, None]).astype(np.float32)
    flat = points.reshape(3, -1) - np.array(part.centre, np.float32)[:, None]
    offset = np.einsum("ij,jn->in", to_unit, flat)  # not @: BLAS may round otherwise with another number of threads
    sweep = np.einsum("ij,j->i", to_unit, np.array(part.sweep, np.float32))
    if sweep.any():
        offset -= sweep[:, None] * np.clip(np.einsum("i,in->n", sweep, offset) / (sweep**2).sum(), 0, 1)
    return np.sqrt((offset**2).sum(axis=0)).reshape(points.shape[1:])


def _points(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Where every voxel lies in the anatomy: turned, scaled, moved and bent a little, (3, z, y, x)."""
    axes = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
    pose = _turn(rng.normal(0, 3)) * rng.uniform((0.95, 0.80, 0.92), (1.05, 0.88, 1.00))[:, None]
    shift = rng.normal(0, (0.06, 0.02, 0.02))
    grid = np.einsum("ij,jzyx->izyx", pose, np.stack(np.meshgrid(*axes, indexing="ij")))
    bend = [0.04 * _smooth_field(rng, shape, 3) + 0.01 * _smooth_field(rng, shape, 7) for _ in shape]
    return (grid + shift[:, None, None, None] + bend).astype(np.float32)


def _smooth_field(rng: Generator, shape: tuple[int, ...], waves: int) -> NDArray[np.float32]:
    """A random sum of cosines of unit variance, with up to `waves` - 1 half periods along each axis."""
    field = rng.standard_normal((waves,) * 3) / waves**1.5
    for n in shape:
        half_turns = np.outer(np.arange(waves), (np.arange(n) + 0.5) / n)
        basis = math.sqrt(2) * np.cos(math.pi * half_turns + rng.uniform(0, 2 * math.pi, (waves, 1)))
        field = np.einsum("kab,kn->abn", field, basis)  # z, y and x in turn, each becomes the last axis
    return field.astype(np.float32)


def _paint_body(canvas: _Canvas) -> None:
    from scipy import ndimage

    rng = canvas.rng
    for part in (*WALL, *_ribs(), *SPINE):
        canvas.paint(_vary(part, rng))
    cavity = _radius(canvas.points, CAVITY, np.array(CAVITY.radii)) < 1
    for part in (*_gut(rng), *ORGAN_PARTS):
        canvas.paint(_vary(part, rng), where=cavity)
    liver = canvas.labels == LABELS["liver"]
    trunk, *branches = _vessel_tree(rng, (-0.15, 0.02, 0.12), (0.25, -0.05, -0.30), radius=0.06, forks=4)
    canvas.paint(trunk)
    for branch in branches:
        canvas.paint(branch, where=liver)
    for lesion in _lesions(rng, canvas.points[:, ndimage.binary_erosion(liver)]):
        canvas.paint(lesion, where=liver)


def _vary(part: _Part, rng: Generator) -> _Part:
    shift, growth, turn = rng.normal(0, (0.025,) * 3), np.exp(rng.normal(0, 0.08, 3)), rng.normal(0, 6)
    return replace(
        part,
        centre=_vector(part.centre + part.looseness * shift),
        radii=_vector(part.radii * growth**part.looseness),
        tilt=part.tilt + part.looseness * turn,
    )


def _ribs() -> Iterator[_Part]:
    """Slanting arcs of three pieces each in the muscle wall, so that an axial slice cuts several ribs."""
    for side in SIDES:
        for level in np.arange(-0.4, 2.4, 0.4):
            bends = [_on_rib(level, side, degrees) for degrees in (20, 60, 100, 140)]
            for start, end in pairwise(bends):
                sweep = _vector(np.subtract(end, start))
                yield _Part("bone", start, (0.07, 0.04, 0.04), sweep=sweep, core="marrow", looseness=0)


def _on_rib(level: float, side: int, degrees: float) -> Vector:
    """A point of a rib; it goes down on its way from the back (0 degrees) to the front."""
    angle = math.radians(degrees)
    return level - degrees / 100, 0.55 * math.cos(angle), 0.745 * side * math.sin(angle)


def _gut(rng: Generator) -> Iterator[_Part]:
    """Loops of any content in the lower half."""
    for _ in range(18):
        turn, outwards = rng.uniform(0, 2 * math.pi), rng.uniform(0, 1)
        centre = (rng.uniform(-1.1, -0.1), 0.25 * outwards * math.sin(turn) - 0.1, 0.5 * outwards * math.cos(turn))
        sweep, content = _vector(rng.uniform(-0.15, 0.15, 3)), str(rng.choice(["fluid", "gut", "air"]))
        yield _Part("gut", centre, (0.20, 0.10, 0.10), sweep=sweep, core=content)


def _vessel_tree(rng: Generator, start: ArrayLike, along: ArrayLike, *, radius: float, forks: int) -> Iterator[_Part]:
    """A tube that forks into two thinner and shorter ones, `forks` times over; the trunk comes first."""
    start, along = np.asarray(start), np.asarray(along)
    yield _Part("vessel", _vector(start), (radius,) * 3, sweep=_vector(along), label="vessel", looseness=0)
    if not forks:
        return
    across = np.cross(along, rng.standard_normal(3))
    across *= np.linalg.norm(along) / np.linalg.norm(across)
    for side in SIDES:
        angle = side * math.radians(rng.uniform(20, 50))
        child = 0.8 * (math.cos(angle) * along + math.sin(angle) * across)
        yield from _vessel_tree(rng, start + along, child, radius=0.82 * radius, forks=forks - 1)


def _lesions(rng: Generator, places: NDArray[np.float32]) -> Iterator[_Part]:
    """Two to four small spots at some of `places`, (3, n); none where there is no place."""
    for place in rng.permutation(places.T)[: rng.integers(2, 5)]:
        radii = rng.uniform(0.07, 0.14) * rng.uniform(0.8, 1.2, 3)
        yield _Part("lesion", _vector(place), _vector(radii), label="lesion", looseness=0)


def _acquire(image: NDArray[np.float32], modality: str, rng: Generator) -> NDArray[np.float32]:
    """What a scanner would make of the picture, in whole numbers as scanners store them."""
    from scipy import ndimage

    blurred = ndimage.gaussian_filter(image, (0.3, 0.5, 0.5))
    if modality == "ct":
        return np.rint(np.maximum(blurred + rng.uniform(16, 24) * _grain(rng, image.shape, 0.6), -1024))
    bias = np.exp(0.16 * _smooth_field(rng, image.shape, 2))
    real, imaginary = (rng.uniform(25, 40) * _grain(rng, image.shape, 0.4) for _ in range(2))
    return np.rint(rng.uniform(0.5, 2.0) * np.hypot(blurred * bias + real, imaginary)).astype(np.float32)


def _grain(rng: Generator, shape: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Noise of unit variance whose neighbours in a slice are alike."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), (0, sigma, sigma))
    return noise / noise.std()


def _cases(cases: int, test_cases: int) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Folder suffix, name and key to the seed of every case."""
    for number in range(cases):
        yield "Tr", f"train_{number:03d}", (0, number)
    for number in range(test_cases):
        yield "Ts", f"test_{number:03d}", (1, number)


def _vary_grid(rng: Generator, shape: Sequence[int], spacing: Sequence[float]) -> tuple[list[int], list[float]]:
    size = np.maximum(np.rint(shape * rng.uniform(0.92, 1.08, 3)), SMALLEST)
    between, within = rng.uniform(0.93, 1.07, 2)  # pixels stay square where they are
    return size.astype(int).tolist(), np.round(spacing * np.array([between, within, within]), 4).tolist()


def _placement(rng: Generator, phantom: Phantom, modality: str) -> tuple[list[float], list[float]]:
    """Origin (mm) and direction (3 x 3, by rows) in the patient's axes, LPS; slices of MR are tilted a little."""
    direction = _turn(rng.uniform(-10, 10) if modality == "mr" else 0)
    half = np.multiply(phantom.image.shape, phantom.spacing)[::-1] / 2
    origin = rng.normal((0, -150, -400), (10, 10, 80)) - direction @ half
    return np.round(origin, 3).tolist(), direction.ravel().tolist()


def _write_case(folder: Path, split: str, case: str, phantom: Phantom, origin: list[float], axes: list[float]) -> None:
    import SimpleITK

    voxels = {f"images{split}/{case}_0000": phantom.image.astype(np.int16), f"labels{split}/{case}": phantom.labels}
    for name, array in voxels.items():
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(phantom.spacing[::-1])
        image.SetOrigin(origin)
        image.SetDirection(axes)
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(path), useCompression=True)


def _write_json(folder: Path, modality: str, cases: int) -> None:
    content = {
        "channel_names": {"0": CHANNELS[modality]},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "description": "Made-up scans of an abdomen; no patient was imaged.",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")

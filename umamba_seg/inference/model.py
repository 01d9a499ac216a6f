"""A trained model in Python: `load_model`, then images in, label maps out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from umamba_seg.device import choose_device, set_import_time_variables, use_threads
from umamba_seg.errors import DataError, ModelError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.inference.cases import Case, Seen, find_cases, look
from umamba_seg.inference.model_folder import ModelFolder
from umamba_seg.inference.models.find import find_model


@dataclass(frozen=True)
class Segmentation:
    """A label map with the geometry of its image.

    Args:
        array: Labels, (z, y, x).
        spacing: In mm along the same axes.
        labels: Value of each class by name; a region has a list of them.
        name: Of the case.
        writer: Writes it as the model's data set keeps label maps.
        properties: What the writer needs.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    labels: dict[str, Any]
    name: str = ""
    writer: Any = None
    properties: Any = None

    @property
    def affine(self) -> np.ndarray:
        """From voxels (x, y, z) to millimetres to the right, anterior and superior, as NIfTI counts them, 4×4."""
        stuff = self.properties or {}
        if "nibabel_stuff" in stuff:
            return np.asarray(stuff["nibabel_stuff"]["original_affine"])
        affine = np.diag([*self.spacing[::-1], 1.0])
        if "sitk_stuff" in stuff:
            geometry = stuff["sitk_stuff"]
            dims = len(geometry["spacing"])
            turn = np.eye(3)
            turn[:dims, :dims] = np.reshape(geometry["direction"], (dims, dims))
            affine[:3, :3] = turn * np.append(geometry["spacing"], [1.0] * (3 - dims))
            affine[:dims, 3] = geometry["origin"]
            affine[:2] *= -1  # SimpleITK counts to the left and posterior
        return affine

    def save(self, file: Path | str) -> Path:
        """Write it, beside and renamed; the ending is that of the model's data set."""
        path = Path(file)
        if self.writer is None:
            raise UsageError("it was made from an array; save  segmentation.array  yourself", code="no-geometry")
        write_beside(path, lambda part: self.writer.write_seg(self.array, str(part), self.properties))
        return path


def write_beside(
    path: Path, write: Callable[[Path], object], when_complete: Callable[[Path], None] = lambda part: None
) -> None:
    """Let something write a file of the same ending beside `path`, and put it in its place when it is complete."""
    from tempfile import TemporaryDirectory

    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path), TemporaryDirectory(dir=path.parent, prefix=".umamba-") as spare:
        write(Path(spare) / path.name)
        when_complete(Path(spare) / path.name)
        for file in sorted(Path(spare).iterdir()):  # some formats have side-cars
            file.replace(path.parent / file.name)


class Model:
    """A trained model that is loaded: a second image costs no import and no reading of weights.

    Use `load_model` to make one.
    """

    def __init__(self, folder: ModelFolder, engine: Any, previous: "Model | Path | None", closing: ExitStack) -> None:
        from umamba_seg.inference.preparation import reader_of

        self.folder, self.engine, self.previous = folder, engine, previous
        self.reader = reader_of(folder)
        self._closing = closing

    @property
    def labels(self) -> dict[str, Any]:
        """Value of each class by name."""
        return dict(self.folder.dataset_json["labels"])

    @property
    def channels(self) -> list[str]:
        """Names of the images of a case, in order."""
        return self.folder.channels

    @property
    def image_axes(self) -> int:
        """How many axes an image must have; 2 where nnU-Net gave the training images a third of one long voxel."""
        plans = self.folder.plans.plans
        shape, spacing = plans["original_median_shape_after_transp"], plans["original_median_spacing_after_transp"]
        is_flat = any(n == 1 and length > 900 * min(spacing) for n, length in zip(shape, spacing, strict=True))
        return 2 if is_flat or plans["image_reader_writer"] == "NaturalImage2DIO" else 3

    def predict(self, image: Path | str | Sequence[Path | str]) -> Segmentation:
        """Segment one image: its file, or one for each channel.

        Raises:
            DataError: The image cannot be read or is not what the model needs.
        """
        files = [image] if isinstance(image, str | Path) else list(image)
        name = Path(files[0]).name.removesuffix(self.folder.ending).removesuffix("_0000")
        return self._segment(Case(name, tuple(Path(file) for file in files), Path(name)))

    def predict_array(self, image: np.ndarray, *, spacing: Sequence[float], order: Literal["zyx", "xyz"]) -> np.ndarray:
        """Segment an array.

        Args:
            image: (z, y, x) or (c, z, y, x); with `order="xyz"` (x, y, z) or (c, x, y, z), as nibabel gives them.
            spacing: In mm, along the array's axes.
            order: Of the axes; there is no default, since nothing else shows which it is.

        Returns:
            Labels, along the axes of the image.
        """
        if order not in ("zyx", "xyz"):
            raise UsageError(f"order must be 'zyx' or 'xyz', got {order!r}", code="bad-order")
        array = np.array(image, np.float32)  # a copy: preparing works in place
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4 or len(array) != len(self.channels):
            needed = f"{len(self.channels)} channels ({', '.join(self.channels)}) of three axes"
            raise DataError(f"the model needs {needed}; got shape {np.shape(image)}", code="wrong-shape")
        if len(spacing) != 3 or min(spacing) <= 0:
            raise DataError(f"the spacing must be three numbers above 0, got {tuple(spacing)}", code="bad-spacing")
        if not np.isfinite(array).all():
            raise DataError("the image holds NaN or infinite numbers", code="not-finite")
        if order == "xyz":
            array, spacing = array.transpose(0, 3, 2, 1), tuple(spacing)[::-1]
        labels = self.segment(array, {"spacing": list(spacing)})
        return labels if order == "zyx" else labels.transpose(2, 1, 0)

    def predict_many(
        self, images: Path | str | Sequence[Path | str], *, out: Path | str | None = None
    ) -> Iterator[Segmentation]:
        """Segment images one after the other, lazily; one that cannot be read ends nothing and is left out.

        Args:
            images: A folder named as nnU-Net wants it, or files of a model of one channel.
            out: Folder for the label maps; without it nothing is written.
        """
        target = Path(out) if out is not None else Path()
        sources = [images] if isinstance(images, str | Path) else list(images)
        ending, channels = self.folder.ending, self.channels
        for case in (case for source in sources for case in find_cases(Path(source), target, ending, channels)):
            try:
                made = self._segment(case)
            except DataError as fault:
                self.engine.tell(f"{case.name}: {fault.what}")
                continue
            if out is not None:
                made.save(case.target)
            yield made

    def read(self, case: Case) -> tuple[np.ndarray, dict[str, Any]]:
        """An image and its geometry, by the plan's reader; strictly, so that damage is told and not filled in.

        Raises:
            DataError: It is not what the model needs.
        """
        seen = look(case, self.channels, self.image_axes)
        if seen.reason is not None:
            raise DataError(seen.reason, code="bad-image")
        try:
            if seen.is_plain and type(self.reader).__name__ == "SimpleITKIO":
                return _as_simpleitk_reads(case, seen)
            image, properties = self.reader.read_images([str(file) for file in case.files])
        except (RuntimeError, ValueError, AssertionError, OSError, KeyError) as fault:
            text = str(fault).strip()
            reason = text.splitlines()[-1] if text else "nnU-Net's reader refuses it"
            raise DataError(reason, code="bad-image") from fault
        wanted = len(self.channels)
        if len(image) != wanted:
            raise DataError(f"the model needs {wanted} channels; its files hold {len(image)}", code="wrong-channels")
        return image, properties

    def segment(
        self,
        image: np.ndarray,
        properties: dict[str, Any],
        *,
        name: str = "",
        on_tile: Callable[[int, int], None] = lambda done, total: None,
        probabilities: np.ndarray | None = None,
    ) -> np.ndarray:
        """Labels of an image from the reader, which is taken over; with the stage before where there is one."""
        before = None
        if isinstance(self.previous, Model):
            before = self.previous.segment(image.copy(), dict(properties), name=name)
        elif self.previous is not None:
            before = self._label_map_before(name, image.shape[1:])
        prepared = self.engine.prepare(image, properties, before)
        return self.engine.labels(prepared, on_tile, probabilities=probabilities)

    def _segment(self, case: Case) -> Segmentation:
        image, properties = self.read(case)
        spacing = tuple(float(length) for length in properties["spacing"])
        array = self.segment(image, properties, name=case.name)
        return Segmentation(array, spacing, self.labels, case.name, self.reader, properties)

    def _label_map_before(self, name: str, shape: Sequence[int]) -> np.ndarray:
        assert isinstance(self.previous, Path)
        file = self.previous / f"{name}{self.folder.ending}"
        if not file.is_file():
            raise DataError(f"the stage before has no label map {file.name}", where=str(self.previous), code="no-stage")
        labels, _ = self.reader.read_seg(str(file))
        if labels.shape[1:] != tuple(shape):
            what = f"the label map of the stage before has {labels.shape[1:]} voxels, the image {tuple(shape)}"
            raise DataError(what, where=str(file), code="shape-mismatch")
        return np.asarray(labels[0])

    def close(self) -> None:
        """Remove what was unpacked of a zip."""
        self._closing.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_simpleitk_reads(case: Case, seen: Seen) -> tuple[np.ndarray, dict[str, Any]]:
    """What nnU-Net's SimpleITKIO makes of plain NIfTI files, of voxels that were read already."""
    import SimpleITK

    places = []
    for file in case.files:
        header = SimpleITK.ImageFileReader()
        header.SetFileName(str(file))
        header.ReadImageInformation()
        places.append((header.GetSpacing(), header.GetOrigin(), header.GetDirection()))
    spacing, origin, direction = places[0]
    if any(place[0] != spacing for place in places):
        raise ValueError(f"its channels differ in spacing: {', '.join(str(place[0]) for place in places)}")
    image = np.empty((len(seen.voxels), *seen.voxels[0].shape[::-1]), np.float32)
    for channel, voxels in zip(image, seen.voxels, strict=True):
        channel[:] = voxels.T
    stuff = {"spacing": spacing, "origin": origin, "direction": direction}
    return image, {"sitk_stuff": stuff, "spacing": list(np.abs(spacing[::-1]))}


def load_model(
    source: Path | str,
    *,
    folds: Sequence[int | str] | Literal["all"] = "all",
    device: str | None = None,
    options: Any = None,
    previous: Path | str | None = None,
    trust: bool = False,
    scratch: Path | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    **changes: Any,
) -> Model:
    """Load a trained model.

    Args:
        source: A results folder, one of its folds, an nnU-Net zip, or a name in the model store.
        folds: Which folds to average; `"all"` means all that are trained.
        device: `cpu`, `cuda` or `mps`; by default the best there is.
        options: `umamba_seg.inference.engine.Options`; the defaults are nnU-Net's.
        previous: For the second stage of a cascade: label maps of the first, or its model. By default the model of the
            first stage beside this one is used.
        trust: Whether code in the checkpoint may run, as unpickling does.
        scratch: Where arrays go that do not fit the memory budget; the current folder unless given.
        tell: Told in a sentence when something is done otherwise than asked for, and why.
        changes: Options by name: `mirror=False`.

    Raises:
        ModelError: It is no model, damaged, or would run code.
    """
    set_import_time_variables()
    chosen = choose_device(device)
    use_threads(chosen)
    from umamba_seg.inference.engine import Engine, Options

    wanted = replace(options or Options(), **changes)
    with ExitStack() as stack:
        place = stack.enter_context(find_model(source))
        folder = ModelFolder.open(place, () if folds == "all" else folds)
        weights = folder.load(trust=trust)
        before: Model | Path | None = None
        if stage := weights.configuration.previous_stage_name:
            found = _stage_before(folder, stage, previous)
            before = (
                found
                if isinstance(found, Path)
                else load_model(found.folder, device=device, options=wanted, trust=trust, scratch=scratch, tell=tell)
            )
        engine = Engine(weights, chosen, wanted, scratch=scratch, tell=tell)
        return Model(folder, engine, before, stack.pop_all())


def _stage_before(folder: ModelFolder, configuration: str, given: Path | str | None) -> ModelFolder | Path:
    """The model of the stage before, or the folder with its label maps."""
    if given is not None:
        path = Path(given)
        if (path / "plans.json").is_file() and any(path.glob("fold_*")):
            return ModelFolder.open(path)
        if path.is_dir():
            return path
        raise UsageError("there is no such folder of label maps or model", where=str(path), code="no-stage")
    trainer, plans, *_ = folder.folder.name.split("__")
    sibling = folder.folder.parent / f"{trainer}__{plans}__{configuration}"
    if not sibling.is_dir():
        what = f"this is the second stage of a cascade, and the first, {sibling.name}, is not beside it"
        how = ["--previous-stage FOLDER names its label maps or its model"]
        raise ModelError(what, where=str(folder.folder), how=how, code="cascade")
    return ModelFolder.open(sibling)

"""Label maps on disk, and the images that they belong to."""

from pathlib import Path

from umamba_seg.errors import DataError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def label_maps(path: Path) -> list[Path]:
    """The label maps of a folder, or the one that a path names."""
    if path.is_dir():
        files = sorted(x for x in path.iterdir() if x.name.endswith(ENDINGS) and not x.name.startswith("."))
        if files:
            return files
    elif path.is_file():
        return [path]
    raise DataError("there is no label map", where=str(path), code="no-label-map")


def image_of(label_map: Path, images: Path) -> Path:
    """The image itself, or of a folder the one of the same name, with `_0000` or without."""
    if images.is_file():
        return images
    ending = next((e for e in ENDINGS if label_map.name.endswith(e)), label_map.suffix)
    stem = label_map.name.removesuffix(ending)
    for name in (f"{stem}_0000{ending}", label_map.name):
        if (images / name).is_file():
            return images / name
    raise DataError(f"there is no image {stem}_0000{ending}", where=str(images), code="no-image")

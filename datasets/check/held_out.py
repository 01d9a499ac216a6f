"""Test images beside a training set: names, channels, readability, and whether they are training images after all."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from umamba_seg.datasets.check import geometry, pictures, values
from umamba_seg.datasets.check.facts import CaseFacts
from umamba_seg.datasets.check.layout import Layout, look_at_tests
from umamba_seg.datasets.findings import Finding
from umamba_seg.errors import DataError


def look(folder: Path, layout: Layout) -> Layout:
    """List the images of a folder, which should have the channels and the ending of the training set."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=f"--test {folder}", code="no-folder")
    return look_at_tests(layout, folder.absolute())


def faults(tests: Layout, cases: Sequence[CaseFacts], training: Sequence[CaseFacts]) -> Iterator[Finding]:
    """All that is wrong with test images.

    Args:
        tests: From `look`.
        cases: Their facts.
        training: Facts of the training cases.
    """
    yield from tests.findings
    known = {image.digest: case.case for case in training for image in case.images.values() if image.digest}
    for case in cases:
        yield from geometry.faults(case, tests.folder.name)
        yield from pictures.faults(case, tests.channels, ())
        yield from values.image_faults(case, tests.channels, ())
        yield from _doubles(case, known)


def _doubles(case: CaseFacts, known: dict[str, str]) -> Iterator[Finding]:
    for image in case.images.values():
        if image.digest in known and image.minimum != image.maximum:
            message = f"the test image {case.case} has the same voxels as the training image {known[image.digest]}"
            names = tuple(dict.fromkeys((case.case, known[image.digest])))
            yield Finding(
                "duplicate-image", "warning", message, names, (image.name,), nnunet="says nothing",
                mend="leave it out of one of the two",
            )  # fmt: skip

"""Writing files so that a kill at any moment leaves the old file or the new one, and a full disk is told as such."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umamba_seg.errors import ResourceError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends well and vanishes when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with told_when_full(path), part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put `text` in the place of whatever `path` holds."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def told_when_full(path: Path) -> Iterator[None]:
    """Turn the system's "no space left" into an error that says how to go on."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in _NO_ROOM:
            raise
        how = ["free some space, then run the same command: what was complete before is still there"]
        raise ResourceError(
            f"no room left to write: {fault.strerror}", where=str(path), how=how, code="disk-full"
        ) from fault

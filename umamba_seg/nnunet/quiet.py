"""nnU-Net prints while it looks trainers up; some callers have nothing to say."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow what Python code prints to stdout inside the block."""
    with redirect_stdout(io.StringIO()):
        yield

"""The backends a test runs on."""

from functools import partial

import pytest
import torch

from umamba_seg.kernels import selective_scan, why_not
from umamba_seg.kernels.dispatch import BACKENDS

each_backend = pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS])


def scan_on(backend: str) -> partial:
    """`selective_scan` on one backend with the last state; skips the test where it cannot run cpu tensors."""
    if reason := why_not(torch.empty(1, 1, 1))[backend]:
        pytest.skip(reason)
    return partial(selective_scan, backend=backend, return_last_state=True)

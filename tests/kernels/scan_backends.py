"""The backends a test runs on."""

import os
from functools import partial
from typing import Any, Protocol

import pytest
import torch

from tests.kernels.volume_cases import VolumeCase
from umamba_seg.kernels import causal_conv, ops, scan_volume, selective_scan, why_not
from umamba_seg.kernels.dispatch import BACKENDS

each_backend = pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS])
INTERPRETED = {"batch": 3, "length": 65, "channels": 17, "states": 16}  # more would take minutes there


class Sizes(Protocol):
    """What a case has."""

    batch: int
    length: int
    channels: int
    states: int


def is_interpreted(backend: str) -> bool:
    """Whether a backend's GPU programs run in Triton's interpreter."""
    return backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


def skip_unless_runs(backend: str, *cases: Sizes, dtype: torch.dtype = torch.float32) -> None:
    """Skip the test where a backend cannot run cpu tensors of a type, or not soon."""
    if reason := why_not(torch.empty(1, 1, 1, dtype=dtype))[backend]:
        pytest.skip(reason)
    for case in cases if is_interpreted(backend) else ():
        for name, most in INTERPRETED.items():
            if getattr(case, name) > most:
                pytest.skip(f"{name} above {most} take too long in the interpreter")


def scan_on(backend: str, *cases: Sizes, dtype: torch.dtype = torch.float32) -> partial[Any]:
    """`selective_scan` on one backend with the last state; skips the test where it cannot run these."""
    skip_unless_runs(backend, *cases, dtype=dtype)
    return partial(selective_scan, backend=backend, return_last_state=True)


def volume_scan_on(backend: str, *cases: VolumeCase, dtype: torch.dtype = torch.float32) -> partial[Any]:
    """`scan_volume` on one backend with the last states; skips the test where it cannot run these."""
    skip_unless_runs(backend, *cases, dtype=dtype)
    dims = len(cases[0].space)
    return partial(scan_volume, backend=backend, return_last_state=True, spatial_dims=dims)


def conv_on(backend: str, dtype: torch.dtype = torch.float32) -> partial[Any]:
    """`causal_conv` on one backend; skips the test where it cannot run cpu tensors of a type."""
    chosen = next(candidate for candidate in BACKENDS if candidate.name == backend)
    if reason := chosen.why_no("conv", torch.device("cpu"), dtype):
        pytest.skip(reason)
    return partial(causal_conv, backend=backend)


def operator_arguments(monkeypatch: pytest.MonkeyPatch, function: Any, **given: Any) -> tuple[Any, ...]:
    """What a front door hands to `ops.scan_forward`, which does not run."""
    seen: list[tuple[Any, ...]] = []

    def spy(*arguments: Any) -> None:
        seen.append(arguments)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(ops, "scan_forward", spy)
        with pytest.raises(InterruptedError):
            function(**given)
    return seen[0]

"""The backends a test runs on."""

import os
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Protocol

import pytest
import torch
from torch.utils._pytree import tree_map_only

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


def home(backend: str) -> torch.device:
    """Where a backend runs: Triton on a GPU where there is one, unless it is interpreted."""
    return torch.device(
        "cuda" if backend == "triton" and torch.cuda.is_available() and not is_interpreted(backend) else "cpu"
    )


def at_home(function: Callable[..., Any], backend: str, **fixed: Any) -> Callable[..., Any]:
    """`function` on a backend, for tensors of the CPU: they go to where it runs, and what comes out comes back."""
    place = home(backend)
    if place.type == "cpu":
        return partial(function, backend=backend, **fixed)

    @wraps(function)
    def moved(*values: Any, **named: Any) -> Any:
        values, named = tree_map_only(torch.Tensor, lambda x: x.to(place), (values, named))
        return tree_map_only(torch.Tensor, lambda x: x.cpu(), function(*values, **named, backend=backend, **fixed))

    return moved


def skip_unless_runs(backend: str, *cases: Sizes, dtype: torch.dtype = torch.float32) -> None:
    """Skip the test where a backend cannot run tensors of a type, or not soon."""
    if reason := why_not(torch.empty(1, 1, 1, dtype=dtype, device=home(backend)))[backend]:
        pytest.skip(reason)
    for case in cases if is_interpreted(backend) else ():
        for name, most in INTERPRETED.items():
            if getattr(case, name) > most:
                pytest.skip(f"{name} above {most} take too long in the interpreter")


def scan_on(backend: str, *cases: Sizes, dtype: torch.dtype = torch.float32) -> Callable[..., Any]:
    """`selective_scan` on one backend with the last state; skips the test where it cannot run these."""
    skip_unless_runs(backend, *cases, dtype=dtype)
    return at_home(selective_scan, backend, return_last_state=True)


def volume_scan_on(backend: str, *cases: VolumeCase, dtype: torch.dtype = torch.float32) -> Callable[..., Any]:
    """`scan_volume` on one backend with the last states; skips the test where it cannot run these."""
    skip_unless_runs(backend, *cases, dtype=dtype)
    dims = len(cases[0].space)
    return at_home(scan_volume, backend, return_last_state=True, spatial_dims=dims)


def conv_on(backend: str, dtype: torch.dtype = torch.float32) -> Callable[..., Any]:
    """`causal_conv` on one backend; skips the test where it cannot run tensors of a type."""
    chosen = next(candidate for candidate in BACKENDS if candidate.name == backend)
    if reason := chosen.why_no("conv", home(backend), dtype):
        pytest.skip(reason)
    return at_home(causal_conv, backend)


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

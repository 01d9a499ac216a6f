"""Which backend runs a scan. A backend asked for by name runs or raises; nothing is replaced in silence."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

from umamba_seg.errors import BackendUnavailableError, UsageError
from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.problem import Scan


class ScanBackend(Protocol):
    """What every `umamba_seg.kernels.<backend>.scan` offers: the same functions, and no options of its own."""

    def forward(self, scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
        """y, the last states and the checkpoints, in memory from `scan.new_y` and its like."""

    def backward(
        self, scan: Scan, checkpoints: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
    ) -> dict[str, Tensor]:
        """The gradients of `scan.differentiable()` by name, in memory from `torch.empty_like`."""


class ConvBackend(Protocol):
    """What `umamba_seg.kernels.<backend>.conv` offers where there is one."""

    def forward(self, conv: Conv) -> Tensor:
        """y, in memory from `torch.empty_like(u)`."""

    def backward(self, conv: Conv, grad: Tensor) -> dict[str, Tensor]:
        """The gradients of `conv.differentiable()` by name, in memory from `torch.empty_like`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run scans; its modules are imported when they first run."""

    name: str
    why_not: Callable[[torch.device, torch.dtype], str | None]  # None where it can run, else the reason it cannot
    is_twice_differentiable: bool = False
    operators: tuple[str, ...] = ("scan",)  # what it has a module for

    def load(self) -> ScanBackend:
        """Import the module that scans."""
        return cast(ScanBackend, import_module(f"umamba_seg.kernels.{self.name}.scan"))

    def load_conv(self) -> ConvBackend:
        """Import the module that convolves."""
        return cast(ConvBackend, import_module(f"umamba_seg.kernels.{self.name}.conv"))

    def why_no(self, operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
        """None where it can run an operator on such tensors, else the reason it cannot."""
        return self.why_not(device, dtype) if operator in self.operators else f"it has no {operator}"


def _needs_numba(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"it runs on cpu tensors, got {device}"
    return _lacks("numba", dtype)


def _needs_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    is_interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not is_interpreted:
        return f"it runs on cuda tensors, got {device}"
    return _lacks("triton", dtype)


def _lacks(package: str, dtype: torch.dtype) -> str | None:
    """What a backend that computes in float32 with a package of its own may lack."""
    if dtype != torch.float32:
        return f"it computes in float32, and one tensor is {dtype}"
    return None if _is_installed(package) else f"{package} is not installed (pip install {package})"


@cache  # a search through the folders of packages takes as long as a small scan
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


BACKENDS = (  # in order of preference
    Backend("numba", _needs_numba, operators=("scan", "conv")),
    Backend("triton", _needs_triton, operators=("scan", "conv")),
    Backend("torch", lambda device, dtype: None, is_twice_differentiable=True, operators=("scan", "conv")),
)

# A plain global, since torch.compile guards on it: a ContextVar it cannot trace, a changed environment it does not see.
_preferred = os.environ.get("UMAMBA_BACKEND") or "auto"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a scan of one device's tensors would be run by.

    Args:
        backend: The name; None if the scan would raise.
        why_not: The backends that cannot run it, by name, and why.
    """

    backend: str | None
    why_not: dict[str, str]


def why_not(u: Tensor) -> dict[str, str | None]:
    """For each backend by name: None if it can run a scan of tensors like `u`, else the reason it cannot."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    return {backend.name: backend.why_not(u.device, dtype) for backend in BACKENDS}


def choose(name: str, device: torch.device, dtype: torch.dtype = torch.float32, operator: str = "scan") -> Backend:
    """The backend to run tensors on `device` with, in arithmetic of `dtype`. A name is never replaced by another."""
    _check_name(name)
    if name == "auto":
        return next(backend for backend in BACKENDS if backend.why_no(operator, device, dtype) is None)
    backend = next(backend for backend in BACKENDS if backend.name == name)
    if reason := backend.why_no(operator, device, dtype):
        raise BackendUnavailableError(
            f"backend {name!r} cannot run this {operator}: {reason}",
            how=['backend="auto" takes the first that can'],
            code="backend-unavailable",
        )
    return backend


def refuse_second_derivatives(backend: Backend) -> None:
    """Say that a backend has none."""
    if not backend.is_twice_differentiable:
        raise BackendUnavailableError(
            f"backend {backend.name!r} has no second derivatives",
            how=['call with backend="torch"'],
            code="no-second-derivative",
        )


def requested(backend: str, operator: str = "scan") -> str:
    """The name that stands for the argument `backend` of a call: itself, or for "auto" the one `use` has set.

    What `use` has set says nothing about an operator that this backend does not have.
    """
    if backend != "auto" or any(_preferred == known.name and operator not in known.operators for known in BACKENDS):
        return backend
    return _preferred


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Run the scans of this process that leave the choice open with one backend; for tests and comparisons.

    The environment variable UMAMBA_BACKEND, read when this package is imported, does the same for a whole process.
    A call that names its backend keeps it; an operator that the backend does not have is left to "auto".
    """
    global _preferred
    _check_name(backend)
    before, _preferred = _preferred, backend
    try:
        yield
    finally:
        _preferred = before


def info() -> dict[str, Choice]:
    """What would run a scan of "cpu" and of "cuda" tensors in this process, and why not something else."""
    return {"cpu": _choice("cpu"), "cuda": _choice("cuda")}


def _choice(device: str) -> Choice:
    if device == "cuda" and not torch.cuda.is_available():
        return Choice(None, {backend.name: "torch sees no cuda device" for backend in BACKENDS})
    u = torch.empty(1, 1, 1, device=device)
    reasons = {name: reason for name, reason in why_not(u).items() if reason}
    try:
        return Choice(choose(_preferred, u.device).name, reasons)
    except BackendUnavailableError:
        return Choice(None, reasons)


def _check_name(name: str) -> None:
    known = ["auto", *(backend.name for backend in BACKENDS)]
    if name not in known:
        is_from_environment = name == os.environ.get("UMAMBA_BACKEND")
        raise UsageError(
            f"backend must be one of {', '.join(map(repr, known))}; got {name!r}",
            where="UMAMBA_BACKEND" if is_from_environment else "",
            how=["unset UMAMBA_BACKEND"] if is_from_environment else (),
            code="unknown-backend",
        )

"""The front door of the selective scan: checks its arguments once and calls the torch operator."""

from typing import Literal, overload

import torch
from torch import Tensor

from umamba_seg.kernels import ops
from umamba_seg.kernels.dispatch import requested
from umamba_seg.kernels.problem import Scan

COEFFICIENT_AXES = {  # of B and C, by layout and number of axes
    "bdl": {2: "dn", 3: "bnl", 4: "bgnl"},
    "bld": {2: "dn", 3: "bln", 4: "blgn"},
}


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: Literal[False] = False,
    reverse: bool = False,
    layout: str = "bdl",
    out_dtype: torch.dtype | None = None,
    cu_seqlens: Tensor | None = None,
    deterministic: bool | None = None,
    backend: str = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: Literal[True],
    reverse: bool = False,
    layout: str = "bdl",
    out_dtype: torch.dtype | None = None,
    cu_seqlens: Tensor | None = None,
    deterministic: bool | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    reverse: bool = False,
    layout: str = "bdl",
    out_dtype: torch.dtype | None = None,
    cu_seqlens: Tensor | None = None,
    deterministic: bool | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan tokens with the selective state space of Mamba (S6; Gu and Dao 2023, algorithm 2).

    For each channel, with n states h:
    dt = softplus(delta + delta_bias); h = exp(dt A) h + dt B u; y = C h + D u; y = y silu(z).
    Tensors may differ in dtype, also from each other; the arithmetic is float32, or float64 if one of them is.

    Args:
        u: (b, d, l), or (b, l, d) with layout="bld"; so are `delta` and `z`.
        A: (d, n), real.
        B: (d, n) when it is the same for all tokens, else (b, n, l), or (b, g, n, l) for g groups of d / g channels;
            with layout="bld" (b, l, n) or (b, l, g, n). So is `C`.
        D: (d,).
        delta_bias: (d,).
        delta_softplus: Whether dt = softplus(delta + delta_bias), else it is the sum itself.
        initial_state: (b, d, n), the state before the first token; with `cu_seqlens` (q, d, n).
        return_last_state: Whether to return the state behind the last token too, in the type of the arithmetic.
        reverse: Whether to go from the last token to the first.
        out_dtype: The type of y, that of u unless given: float32 keeps what float16 cannot hold.
        cu_seqlens: (q + 1,), int32 or int64: q sequences lie one behind the other along l, the i-th from
            cu_seqlens[i] to cu_seqlens[i + 1], each with a state of its own. Needs b = 1.
        deterministic: Whether the same call must give the same bits, gradients included; None leaves it to the
            backend. "torch" always does, on the same number of threads.
        backend: "auto" takes the first that can run u; a name is never replaced.

    Returns:
        y, shaped like u; with `return_last_state` y and the last state, shaped like the initial one.

    Raises:
        ValueError: Shapes, types, devices or options that do not fit.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    scan = Scan(
        u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens,
        delta_softplus, reverse, layout, out_dtype, deterministic,
    )  # fmt: skip
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # there, sizes are no numbers
        _check(scan)
    y, last_state, _ = ops.selective_scan(
        u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens,
        delta_softplus, reverse, layout, out_dtype, deterministic, requested(backend),
    )  # fmt: skip
    return (y, last_state) if return_last_state else y


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan` with the signature of mamba_ssm's function of this name, for models written against it."""
    y, last_state = selective_scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus, return_last_state=True
    )
    return (y, last_state) if return_last_state else y


def _check(scan: Scan) -> None:
    if scan.layout not in COEFFICIENT_AXES:
        raise ValueError(f"layout must be 'bdl' or 'bld', got {scan.layout!r}")
    for name, x in scan.differentiable().items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be a real floating-point tensor, got {x.dtype}")
        if x.device != scan.u.device:
            raise ValueError(f"{name} must be on the device of u, {scan.u.device}; got {x.device}")
    if scan.out_dtype is not None and not scan.out_dtype.is_floating_point:
        raise ValueError(f"out_dtype must be a real floating-point type, got {scan.out_dtype}")
    _check_axes("u", scan.u, scan.layout)
    _check_axes("A", scan.A, "dn")
    if scan.cu_seqlens is not None:
        _check_packing(scan, scan.cu_seqlens)
    _check_shapes(scan)


def _check_axes(name: str, x: Tensor, axes: str) -> None:
    if x.dim() != len(axes):
        raise ValueError(f"{name} must have {len(axes)} axes, {', '.join(axes)}; got shape {tuple(x.shape)}")


def _check_packing(scan: Scan, cu_seqlens: Tensor) -> None:
    _check_axes("cu_seqlens", cu_seqlens, "q")
    if cu_seqlens.dtype not in (torch.int32, torch.int64) or not len(cu_seqlens):
        raise ValueError(f"cu_seqlens must be int32 or int64 and begin with 0; got {cu_seqlens}")
    if cu_seqlens.device != scan.u.device:
        raise ValueError(f"cu_seqlens must be on the device of u, {scan.u.device}; got {cu_seqlens.device}")
    if scan.batch != 1:
        raise ValueError(f"cu_seqlens packs sequences into a batch of one; u has a batch of {scan.batch}")


def _check_shapes(scan: Scan) -> None:
    sizes = dict(zip(scan.layout, scan.u.shape, strict=True)) | {"n": scan.states, "q": scan.sequences}
    if not sizes["d"] or not sizes["n"]:
        raise ValueError(f"there must be channels and states; got u {tuple(scan.u.shape)} and A {tuple(scan.A.shape)}")
    axes = {"A": "dn", "delta": scan.layout, "z": scan.layout, "D": "d", "delta_bias": "d", "initial_state": "qdn"}
    for name, x in (("B", scan.B), ("C", scan.C)):
        choices = COEFFICIENT_AXES[scan.layout]
        if x.dim() not in choices:
            raise ValueError(f"{name} must have the axes {', '.join(choices.values())}; got shape {tuple(x.shape)}")
        axes[name] = choices[x.dim()]
    groups = _check_groups(scan, axes)
    for name, x in scan.differentiable().items():
        if name != "u":
            expected = tuple(groups[name] if axis == "g" else sizes[axis] for axis in axes[name])
            if tuple(x.shape) != expected:
                letters = ", ".join(axes[name])
                raise ValueError(f"{name} must have the shape ({letters}), {expected}; got {tuple(x.shape)}")


def _check_groups(scan: Scan, axes: dict[str, str]) -> dict[str, int]:
    groups = {name: x.shape[axes[name].index("g")] for name, x in (("B", scan.B), ("C", scan.C)) if "g" in axes[name]}
    for name, number in groups.items():
        if not number or scan.channels % number:
            raise ValueError(f"the groups of {name} must divide the {scan.channels} channels of A; got {number}")
    if len({1, *groups.values()}) > 2:
        raise ValueError(f"B and C must have the same number of groups, or one of them 1; got {groups}")
    return groups

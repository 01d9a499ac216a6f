"""The selective scan of tokens in a row: a volume with one axis and one route."""

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from umamba_seg.kernels import ops
from umamba_seg.kernels.checks import check_axes, check_shape, check_types, is_differentiated
from umamba_seg.kernels.dispatch import requested

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
    given = _Given(u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, layout, reverse)
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # there, sizes are no numbers
        check_types(given.tensors(), out_dtype)
        given.check()
    y, last_state, _ = ops.scan_forward(
        *given.as_volume(), ("-x" if reverse else "+x") + ("/@" if given.is_packed else ""), [], 1.0,
        delta_softplus, False, "", False, return_last_state, is_differentiated(given.tensors()),
        out_dtype, deterministic, requested(backend),
    )  # fmt: skip
    y = y[0] if layout == "bld" else y[0].transpose(1, 2)
    if not return_last_state:
        return y
    return y, given.last_state(last_state)


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


@dataclass(frozen=True, slots=True)
class _Given:
    """The tensors of a call; see `selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    layout: str
    reverse: bool

    @property
    def is_packed(self) -> bool:
        return self.cu_seqlens is not None

    def tensors(self) -> dict[str, Tensor]:
        """Those that were given and can have a gradient, by name."""
        names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
        return {name: x for name in names if (x := getattr(self, name)) is not None}

    def as_volume(self) -> tuple[Tensor | None, ...]:
        """The tensors of `Scan`: tokens are the voxels of a volume with one axis, and there is one route."""
        u, delta, z = (None if x is None else self._tokens_first(x)[None] for x in (self.u, self.delta, self.z))
        B, C = (self._coefficient(x) for x in (self.B, self.C))
        D, delta_bias = (None if x is None else x[None] for x in (self.D, self.delta_bias))
        state, offsets = self.initial_state, self.cu_seqlens
        if offsets is not None:
            offsets = (self._mirrored(offsets) if self.reverse else offsets)[None].long()
        if state is not None:
            state = self._in_order(state)[None, None] if self.is_packed else state[None, :, None]
        return u, delta, self.A[None], B, C, D, z, delta_bias, None, state, None, offsets

    def last_state(self, x: Tensor) -> Tensor:
        """(1, b, s, d, n) -> (b, d, n), or (q, d, n) where sequences are packed."""
        return self._in_order(x[0, 0]) if self.is_packed else x[0, :, 0]

    def check(self) -> None:
        """Refuse what does not fit together."""
        if self.layout not in COEFFICIENT_AXES:
            raise ValueError(f"layout must be 'bdl' or 'bld', got {self.layout!r}")
        check_axes("u", self.u, self.layout)
        check_axes("A", self.A, "dn")
        sizes = dict(zip(self.layout, self.u.shape, strict=True))
        sizes |= {"n": self.A.shape[1], "q": self._check_packing(self.u.shape[0])}
        if not sizes["d"] or not sizes["n"]:
            raise ValueError(
                f"there must be channels and states; got u {tuple(self.u.shape)} and A {tuple(self.A.shape)}"
            )
        axes = {"A": "dn", "delta": self.layout, "z": self.layout, "D": "d", "delta_bias": "d", "initial_state": "qdn"}
        for name, x in self.tensors().items():
            if name in ("B", "C"):
                self._check_coefficient(name, x, sizes)
            elif name != "u":
                check_shape(name, x, axes[name], sizes)

    def _check_packing(self, batch: int) -> int:
        """How many sequences there are."""
        if self.cu_seqlens is None:
            return batch
        check_axes("cu_seqlens", self.cu_seqlens, "q")
        if self.cu_seqlens.dtype not in (torch.int32, torch.int64) or not len(self.cu_seqlens):
            raise ValueError(f"cu_seqlens must be int32 or int64 and begin with 0; got {self.cu_seqlens}")
        if self.cu_seqlens.device != self.u.device:
            raise ValueError(f"cu_seqlens must be on the device of u, {self.u.device}; got {self.cu_seqlens.device}")
        if batch != 1:
            raise ValueError(f"cu_seqlens packs sequences into a batch of one; u has a batch of {batch}")
        return len(self.cu_seqlens) - 1

    def _check_coefficient(self, name: str, x: Tensor, sizes: dict[str, int]) -> None:
        choices = COEFFICIENT_AXES[self.layout]
        if x.dim() not in choices:
            raise ValueError(f"{name} must have the axes {', '.join(choices.values())}; got shape {tuple(x.shape)}")
        axes = choices[x.dim()]
        groups = x.shape[axes.index("g")] if "g" in axes else 1
        if not groups or sizes["d"] % groups:
            raise ValueError(f"the groups of {name} must divide the {sizes['d']} channels of A; got {groups}")
        check_shape(name, x, axes, sizes | {"g": groups})

    def _tokens_first(self, x: Tensor) -> Tensor:
        return x if self.layout == "bld" else x.movedim(-1, 1)

    def _in_order(self, states: Tensor) -> Tensor:
        """States of packed sequences, the last one first where the scan begins with it; and back."""
        return states.flip(0) if self.reverse else states

    def _mirrored(self, ends: Tensor) -> Tensor:
        """`cu_seqlens`, counted from the last token."""
        return (self._tokens_first(self.u).shape[1] - ends).flip(0)

    def _coefficient(self, x: Tensor) -> Tensor:  # B or C -> (1, b or 1, l or 1, g, n)
        if x.dim() == 2:
            return x[None, None, None]
        x = self._tokens_first(x)
        return x[None] if x.dim() == 4 else x[None, :, :, None]

"""One selective scan, as every backend gets it.

S6 (Gu and Dao 2023, algorithm 2), for each batch item and channel, over the tokens:

    dt = softplus(delta + delta_bias);  h = exp(dt * A) * h + dt * u * B;  y = sum_n C * h + D * u;  y = y * silu(z)

Shapes: b batch, l tokens, d channels, n states, g groups of channels that share B and C, q sequences, each with a state
of its own: the batch items, or what `cu_seqlens` packs along l.
"""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

DIFFERENTIABLE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


@dataclass(frozen=True, slots=True)
class Scan:
    """The checked arguments of `selective_scan`, which describes them; the fields are in the order of the torch ops."""

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
    delta_softplus: bool
    reverse: bool
    layout: str
    out_dtype: torch.dtype | None
    deterministic: bool | None

    @property
    def batch(self) -> int:
        """How many batch items there are: b."""
        return self.u.shape[0]

    @property
    def length(self) -> int:
        """How many tokens a batch item has: l."""
        return self.u.shape[1 if self.layout == "bld" else 2]

    @property
    def channels(self) -> int:
        """How many channels a token has: d."""
        return self.A.shape[0]

    @property
    def states(self) -> int:
        """How many states a channel has: n."""
        return self.A.shape[1]

    @property
    def groups(self) -> int:
        """How many groups of channels differ in B or C: g; 1 when both are constant."""
        axis = 2 if self.layout == "bld" else 1
        return max(x.shape[axis] if x.dim() == 4 else 1 for x in (self.B, self.C))

    @property
    def sequences(self) -> int:
        """How many sequences there are: q."""
        return self.batch if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    @property
    def state_dtype(self) -> torch.dtype:
        """The type of all arithmetic: float32, or float64 as soon as one tensor is float64."""
        return reduce(torch.promote_types, (x.dtype for x in self.differentiable().values()), torch.float32)

    @property
    def y_dtype(self) -> torch.dtype:
        """The type of y."""
        return self.u.dtype if self.out_dtype is None else self.out_dtype

    def differentiable(self) -> dict[str, Tensor]:
        """The tensors that were given and can have a gradient, by name, in the order of the fields."""
        return {name: value for name in DIFFERENTIABLE if (value := getattr(self, name)) is not None}

    def tokens_first(self, x: Tensor) -> Tensor:
        """View a tensor that varies over tokens as (b, l, d), (b, l, n) or (b, l, g, n), whatever the layout."""
        return x if self.layout == "bld" else x.movedim(-1, 1)

    def packed_ends(self) -> list[int]:
        """The values of `cu_seqlens`, checked here, where they are known: a traced call has shapes only."""
        assert self.cu_seqlens is not None
        ends: list[int] = self.cu_seqlens.tolist()
        if ends[0] != 0 or ends[-1] != self.length or ends != sorted(ends):
            raise ValueError(f"cu_seqlens must rise from 0 to the number of tokens, {self.length}; got {ends}")
        return ends

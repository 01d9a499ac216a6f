"""One convolution along a route, as every backend gets it.

Over the tokens u[0], u[1], ... of each piece of the route, channel by channel,

    o[t] = bias + sum_j weight[j] * u[t - before + j];  y[t] = o[t] * sigmoid(o[t])

where u is zero beyond both ends of the piece, and `before` is w - 1, so that a token sees those before it, or
(w - 1) // 2. Tokens that are not there are left out: those beside them are neighbours.

Shapes: b batch, d channels, w width, s pieces of the route.
"""

from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from torch import Tensor

from umamba_seg.kernels.problem import has_repeats
from umamba_seg.kernels.routes import Order, orders

DIFFERENTIABLE = ("u", "weight", "bias")


@dataclass(frozen=True, slots=True)
class Conv:
    """The checked arguments of a convolution; the fields are in the order of the torch operators.

    Args:
        u: (b, *space, d).
        weight: (d, w).
        bias: (d,).
        table: (1, b or 1, tokens), int64, where the route is one.
        offsets: (1, s + 1), int64, where the route has some.
        route: See `routes.orders`.
        is_centred: Whether a token sees as many before it as behind it; of an even number one more behind.
        has_silu: Whether SiLU follows.
    """

    u: Tensor
    weight: Tensor
    bias: Tensor | None
    table: Tensor | None
    offsets: Tensor | None
    route: str
    is_centred: bool
    has_silu: bool

    @property
    def batch(self) -> int:
        """How many batch items there are: b."""
        return self.u.shape[0]

    @property
    def space(self) -> tuple[int, ...]:
        """The extents of the volume."""
        return tuple(self.u.shape[1:-1])

    @property
    def channels(self) -> int:
        """How many channels a voxel has: d."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """How many tokens a token sees: w."""
        return self.weight.shape[1]

    @property
    def before(self) -> int:
        """How many of them are before it."""
        return (self.width - 1) // 2 if self.is_centred else self.width - 1

    @property
    def dtype(self) -> torch.dtype:
        """The type of all arithmetic: float32, or float64 as soon as one tensor is float64."""
        return reduce(torch.promote_types, (x.dtype for x in self.differentiable().values()), torch.float32)

    def order(self) -> Order:
        """The order of the tokens."""
        return orders(self.route, self.space, self.table, self.offsets)[0]

    def differentiable(self) -> dict[str, Tensor]:
        """The tensors that were given and can have a gradient, by name, in the order of the fields."""
        return {name: value for name in DIFFERENTIABLE if (value := getattr(self, name)) is not None}

    def check_values(self) -> None:
        """Refuse a table and offsets that make no sense. A traced call knows shapes only; here are values."""
        order = self.order()
        order.check_values(prod(self.space))
        if order.table is not None and has_repeats(order.table):
            raise ValueError("a table for a convolution must name no voxel twice")

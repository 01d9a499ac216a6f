"""One scan, as every backend gets it: a volume, walked along several routes.

S6 (Gu and Dao 2023, algorithm 2), for each route, batch item and channel, over the tokens of each piece of the route:

    dt = decay_scale * softplus(delta + delta_bias);  h = exp(dt * A) * h + dt * u * B;  o = sum_n C * h

and then, voxel by voxel, y = (o + D * u) * weights * y_scale * silu(z), added up over the routes or stacked.

Shapes: k routes, b batch, v voxels, d channels, n states, g groups of channels that share B and C, s pieces of a route,
q sequences, which are the pieces of all batch items. A tensor that all routes share has 1 for k.
"""

from dataclasses import dataclass
from functools import reduce
from math import lcm, prod

import torch
from torch import Tensor

from umamba_seg.kernels.routes import Order, orders

DIFFERENTIABLE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "weights", "initial_state")
CHECKPOINT_STEP = 64  # tokens between two states that the forward pass keeps for the backward pass
SPARE = 2  # numbers beside these states: torch binds a graph to sizes that make a tensor have no elements, or one


@dataclass(frozen=True, slots=True)
class Scan:
    """The checked arguments of a scan; the fields are in the order of the torch operators.

    Args:
        u: (k, b, *space, d).
        delta: (k, b, *space, d).
        A: (k, d, n).
        B: (k, b, *space, g, n); 1 for b and space where it is the same for all tokens.
        C: Like B, with groups of its own.
        D: (k, d).
        z: (k, b, *space, d).
        delta_bias: (k, d).
        weights: (k, b, d), with 1 for b or d where it is the same for all.
        initial_state: (k, b, s, d, n).
        table: (routes that are tables, b or 1, tokens), int64.
        offsets: (routes with offsets, s + 1), int64.
        routes: See `routes.orders`.
        decay_scale: One number for each route, or none at all.
        y_scale: One number for all routes.
        delta_softplus: Whether dt is softplus(delta + delta_bias), else it is the sum itself.
        exact_gain: Whether u * B enters with (exp(dt * A) - 1) / A, else with dt.
        exclusive: "" when a token reads the state it has changed; "own" when it reads the state before its input
            entered, decayed; "shift" when it gets what the token before it reads.
        is_stacked: Whether y has one volume for each route, else their sum.
        keeps_last: Whether the last states are wanted.
        is_differentiated: Whether a backward pass may come.
        out_dtype: The type of y, that of u when None.
        deterministic: Whether the same call must give the same bits.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    weights: Tensor | None
    initial_state: Tensor | None
    table: Tensor | None
    offsets: Tensor | None
    routes: str
    decay_scale: list[float]
    y_scale: float
    delta_softplus: bool
    exact_gain: bool
    exclusive: str
    is_stacked: bool
    keeps_last: bool
    is_differentiated: bool
    out_dtype: torch.dtype | None
    deterministic: bool | None

    @property
    def number_of_routes(self) -> int:
        """How many routes there are: k."""
        return self.routes.count(",") + 1

    @property
    def batch(self) -> int:
        """How many batch items there are: b."""
        return self.u.shape[1]

    @property
    def space(self) -> tuple[int, ...]:
        """The extents of the volume."""
        return tuple(self.u.shape[2:-1])

    @property
    def channels(self) -> int:
        """How many channels a voxel has: d."""
        return self.A.shape[1]

    @property
    def states(self) -> int:
        """How many states a channel has: n."""
        return self.A.shape[2]

    @property
    def groups(self) -> int:
        """How many groups of channels differ in B or C: g."""
        return lcm(self.B.shape[-2], self.C.shape[-2])

    @property
    def state_dtype(self) -> torch.dtype:
        """The type of all arithmetic: float32, or float64 as soon as one tensor is float64."""
        return reduce(torch.promote_types, (x.dtype for x in self.differentiable().values()), torch.float32)

    @property
    def y_dtype(self) -> torch.dtype:
        """The type of y."""
        return self.u.dtype if self.out_dtype is None else self.out_dtype

    def orders(self) -> list[Order]:
        """The order of each route."""
        return orders(self.routes, self.space, self.table, self.offsets)

    def scale(self, route: int) -> float:
        """What the step sizes of a route are multiplied with."""
        return self.decay_scale[route] if self.decay_scale else 1.0

    def differentiable(self) -> dict[str, Tensor]:
        """The tensors that were given and can have a gradient, by name, in the order of the fields."""
        return {name: value for name in DIFFERENTIABLE if (value := getattr(self, name)) is not None}

    def new_y(self) -> Tensor:
        """Memory for y: (k, b, *space, d), or (1, b, *space, d) for a sum; axes lie as those of u do."""
        routes = self.number_of_routes if self.is_stacked else 1
        if self.u.shape[0] == routes:
            return torch.empty_like(self.u, dtype=self.y_dtype)
        return self.u.new_empty((routes, *self.u.shape[1:]), dtype=self.y_dtype)

    def new_last_state(self) -> Tensor:
        """Memory for the last states: (k, b, s, d, n), zero where a route has fewer pieces than another."""
        if not self.keeps_last:
            return self.u.new_empty((0,), dtype=self.state_dtype)
        pieces = max(order.pieces for order in self.orders())
        shape = (self.number_of_routes, self.batch, pieces, self.channels, self.states)
        return self.u.new_zeros(shape, dtype=self.state_dtype)

    def new_checkpoints(self) -> Tensor:
        """Memory for what `forward` keeps for `backward`; its size is the same for every backend."""
        memory = self.u.new_empty((self.checkpoint_size(),), dtype=self.state_dtype)
        memory[-SPARE:].zero_()
        return memory

    def checkpoint_size(self) -> int:
        """How many numbers are kept: the state (n, d) before every `CHECKPOINT_STEP` tokens of a piece but the first.

        They lie route by route, in a route [batch item][slot][n][d]. The state before token t of a route has the slot
        t // CHECKPOINT_STEP, which no other has.
        """
        if not self.is_differentiated:
            return 0
        kept = self.batch * sum(slots(order) for order in self.orders()) * self.channels * self.states
        return kept + SPARE

    def check_values(self) -> None:
        """Refuse tables and offsets that make no sense. A traced call knows shapes only; here are values."""
        for order in self.orders():
            order.check_values(prod(self.space))
            if self.is_stacked and order.table is not None and has_repeats(order.table):
                raise ValueError('a table that names a voxel twice needs merge="sum"')


def slots(order: Order) -> int:
    """How many states are kept for a batch item of one route; none where no piece is longer than a step."""
    longest = order.length if order.offsets is not None else torch.sym_min(order.window, order.run)
    # arithmetic, since an if would bind a graph to its sizes
    is_any = torch.sym_max(0, torch.sym_min(1, (longest - 1) // CHECKPOINT_STEP))
    return is_any * (order.length // CHECKPOINT_STEP + 1)


def has_repeats(table: Tensor) -> bool:
    """Whether a row of a table (b, t) names a voxel twice."""
    in_order = table.sort(dim=1).values
    return bool(((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any())

"""Volumes to scan: shapes, routes, options."""

from dataclasses import dataclass, fields
from math import prod
from typing import Any

import torch
from torch import Tensor

PER_ROUTE = ("u", "delta", "A", "B", "C", "D", "delta_bias")  # what may have a route axis
OFTEN_LEFT_OUT = ("D", "z", "delta_bias", "initial_state")
TABLES = {  # by name, for a volume of so many voxels and a batch of so many items
    "shuffled": lambda voxels, batch: _shuffled(voxels),
    "short": lambda voxels, batch: _shuffled(voxels)[: voxels // 2 + 1],
    "padded": lambda voxels, batch: _with_gaps(_shuffled(voxels)),
    "samples": lambda voxels, batch: torch.stack([_with_gaps(_shuffled(voxels).roll(i)) for i in range(batch)]),
    "repeats": lambda voxels, batch: torch.cat([_shuffled(voxels), _with_gaps(torch.arange(voxels))]).int(),
}


@dataclass(frozen=True)
class VolumeCase:
    """A volume, its routes and what is given to a scan of it.

    Args:
        routes: Each as `scan_volume` takes it, or the name of a table.
        reset: One for all routes, numbers or offsets as a tuple.
        own: What has a route axis.
        weights: "", or which axes the weights have beside that of the routes: "k", "kb", "kd", "kbd".
    """

    space: tuple[int, ...]
    routes: tuple[str, ...]
    batch: int = 2
    channels: int = 3
    states: int = 2
    reset: int | tuple[int, ...] | None = None
    own: tuple[str, ...] = ()
    merge: str = "sum"
    weights: str = ""
    delta_softplus: bool = True
    decay_scale: tuple[float, ...] | None = None
    exact_gain: bool = False
    exclusive: str | None = None
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [
            f"{field.name}={value}" for field in fields(self) if (value := getattr(self, field.name)) != field.default
        ]
        return " ".join(told)

    @property
    def length(self) -> int:
        """The tokens of the longest route."""
        return max(self._tokens_of(route) for route in self.routes)

    @property
    def pieces(self) -> int:
        """How many states a batch item needs: the pieces of the route that has the most."""
        return max(self._pieces_of(route) for route in self.routes)

    def options(self) -> dict[str, Any]:
        """What is given beside tensors that can have a gradient."""
        voxels = prod(self.space)
        names = ("merge", "delta_softplus", "decay_scale", "exact_gain", "exclusive")
        return {name: getattr(self, name) for name in names} | {
            "routes": [TABLES[name](voxels, self.batch) if name in TABLES else name for name in self.routes],
            "reset": torch.tensor(self.reset) if isinstance(self.reset, tuple) else self.reset,
        }

    def tensors(self, seed: int = 0) -> dict[str, Tensor]:
        """In float64; the decays of a token lie between 0 and 1, so that some states forget soon and some late."""
        generator = torch.Generator().manual_seed(seed)
        routes, channels = len(self.routes), self.channels
        part = channels // routes if self.merge == "concat" else channels

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def shape(name: str, *sizes: int) -> tuple[int, ...]:
            return (routes, *sizes) if name in self.own else sizes

        volume = (self.batch, *self.space)
        delta, bias = normal(*shape("delta", *volume, channels)), normal(*shape("delta_bias", channels))
        A = normal(*shape("A", channels, 1)).abs() + torch.arange(1, self.states + 1)
        every = {
            "u": normal(*shape("u", *volume, channels)),
            "delta": delta - 2 if self.delta_softplus else delta.abs() / 8,
            "A": -A,
            "B": normal(*shape("B", *volume, self.states)),
            "C": normal(*shape("C", *volume, self.states)),
            "D": normal(*shape("D", channels)),
            "z": normal(*volume, channels),
            "delta_bias": bias if self.delta_softplus else bias.abs() / 8,
            "initial_state": normal(routes, self.batch, self.pieces, part, self.states),
            "weights": self._weights(normal, routes, part),
        }
        return {name: x for name, x in every.items() if x is not None and name not in self.left_out}

    def _weights(self, normal: Any, routes: int, channels: int) -> Tensor | None:
        if len(self.weights) < 2:
            return normal(routes) if self.weights else None
        return normal(self.batch if "b" in self.weights else 1, routes, channels if "d" in self.weights else 1)

    def _tokens_of(self, route: str) -> int:
        voxels = prod(self.space)
        return TABLES[route](voxels, self.batch).shape[-1] if route in TABLES else voxels

    def _pieces_of(self, route: str) -> int:
        if isinstance(self.reset, tuple):
            return len(self.reset) - 1
        line = length = self._tokens_of(route)
        if len(route.strip("+-")) == 1:
            line = self.space["zyx"[-len(self.space) :].index(route[-1])]
        return length // max(1, line) * -(-line // (self.reset or line)) if length else 1


def _shuffled(voxels: int) -> Tensor:
    return torch.randperm(voxels, generator=torch.Generator().manual_seed(voxels))


def _with_gaps(table: Tensor) -> Tensor:
    """Tokens that are not there: at the begin, at the end, and two in a row within."""
    gap = table.new_full((1,), -1)
    middle = len(table) // 2
    return torch.cat([gap, table[:middle], gap, gap, table[middle:], gap])

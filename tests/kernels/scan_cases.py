"""Scans to test on: shapes, options, and the outcome with every gradient."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """The shapes of a scan and what is given to it.

    Args:
        B: Groups of B; 0 when it does not vary over tokens. So is `C`.
        ends: Where packed sequences end, 0 first; needs batch 1.
    """

    batch: int
    length: int
    channels: int
    states: int
    B: int = 1
    C: int = 1
    layout: str = "bdl"
    delta_softplus: bool = True
    reverse: bool = False
    ends: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [
            f"{field.name}={value}" for field in fields(self) if (value := getattr(self, field.name)) != field.default
        ]
        return " ".join(told)

    def options(self) -> dict[str, Any]:
        options = {"delta_softplus": self.delta_softplus, "reverse": self.reverse, "layout": self.layout}
        return options | ({"cu_seqlens": torch.tensor(self.ends)} if self.ends else {})

    def tensors(self, seed: int = 0) -> dict[str, Tensor]:
        """In float64; the decays of a token lie between 0 and 1, so that some states forget soon and some late."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def varying(*features: int) -> Tensor:
            shape = (*features, self.length) if self.layout == "bdl" else (self.length, *features)
            return normal(self.batch, *shape)

        def coefficient(groups: int) -> Tensor:
            if groups == 0:
                return normal(self.channels, self.states)
            return varying(self.states) if groups == 1 else varying(groups, self.states)

        sequences = len(self.ends) - 1 if self.ends else self.batch
        delta = varying(self.channels)
        every = {
            "u": varying(self.channels),
            "delta": delta - 2 if self.delta_softplus else delta.abs() / 8,
            "A": -torch.arange(1, self.states + 1).double().repeat(self.channels, 1) - normal(self.channels, 1).abs(),
            "B": coefficient(self.B),
            "C": coefficient(self.C),
            "D": normal(self.channels),
            "z": varying(self.channels),
            "delta_bias": normal(self.channels) if self.delta_softplus else normal(self.channels).abs() / 8,
            "initial_state": normal(sequences, self.channels, self.states),
        }
        return {name: x for name, x in every.items() if name not in self.left_out}


class HasTensors(Protocol):
    def tensors(self) -> dict[str, Tensor]: ...


def outcome(
    scan: Callable[..., tuple[Tensor, Tensor]], tensors: dict[str, Tensor], **options: Any
) -> dict[str, Tensor]:
    """y, the last state and every gradient of both, by name."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    y, last = scan(**leaves, **options)
    results = [x for x in (y, last) if x.requires_grad]
    grads = torch.autograd.grad(results, list(leaves.values()), [weights(x) for x in results], materialize_grads=True)
    return {
        "y": y.detach(),
        "last_state": last.detach(),
        **dict(zip((f"d{name}" for name in leaves), grads, strict=True)),
    }


def single(case: HasTensors) -> dict[str, Tensor]:
    """The tensors of a case in float32."""
    return {name: x.float() for name, x in case.tensors().items()}


def in_double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() for name, x in tensors.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all have the same bits."""
    return all(torch.equal(one[name], other[name]) for name in one)


def weights(x: Tensor) -> Tensor:
    """What to weigh the elements of x with in a sum: a plain one hides errors of sign and order. Exact in any dtype."""
    return ((torch.arange(x.numel()) % 31 - 15) / 16).to(x.dtype).view(x.shape)


def covering(keep: Callable[..., bool] = lambda **_: True, **axes: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Choices from the axes, such that every pair of values of two axes comes together in one that `keep` allows."""
    names = list(axes)
    every = [((a, x), (b, y)) for a, b in combinations(names, 2) for x in axes[a] for y in axes[b]]
    met: set[tuple[tuple[str, Any], ...]] = set()
    for pair in every:
        if pair in met:
            continue
        choice = dict(pair)
        for name in names:
            if name not in choice:
                options = [x for x in axes[name] if _fits(keep, axes, choice | {name: x})]
                if not options:
                    break
                choice[name] = max(options, key=lambda x: len(_pairs(choice | {name: x}, names) - met))
        else:
            if keep(**choice):
                met |= _pairs(choice, names)
                yield {name: choice[name] for name in names}


def _pairs(choice: dict[str, Any], names: list[str]) -> set[tuple[tuple[str, Any], ...]]:
    return set(combinations([(name, choice[name]) for name in names if name in choice], 2))


def _fits(keep: Callable[..., bool], axes: dict[str, tuple[Any, ...]], choice: dict[str, Any]) -> bool:
    """Whether the first value of each axis left can complete the choice."""
    return keep(**{name: values[0] for name, values in axes.items()} | choice)

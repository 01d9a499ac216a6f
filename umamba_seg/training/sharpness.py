"""Sharpness-aware minimisation: a step with the gradient that the loss has a little uphill."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

RHO = 0.05
Places = list[tuple[Parameter, Tensor]]


@torch.no_grad()
def climb(parameters: Iterable[Parameter], *, rho: float = RHO, is_adaptive: bool = False) -> Places:
    """Move w by ρ g / ‖g‖, or by ρ w² g / ‖|w| g‖, in place; what was moved, and where it was.

    The scale of g does not matter, so gradients need not be unscaled. Where ‖g‖ is not finite or 0 nothing moves.
    """
    found = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    moved = [parameter for parameter, _ in found]
    weights = [parameter.abs() if is_adaptive else torch.ones_like(parameter) for parameter in moved]
    gradients = [weight * gradient for weight, (_, gradient) in zip(weights, found, strict=True)]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if moved else torch.zeros(())
    if not (norm.isfinite() and norm > 0):
        return []
    before = [(parameter, parameter.detach().clone()) for parameter in moved]
    for parameter, weight, gradient in zip(moved, weights, gradients, strict=True):
        parameter.add_(weight * gradient, alpha=rho / (norm.item() + 1e-12))
    return before


@torch.no_grad()
def come_back(before: Places) -> None:
    """Put every parameter back to the bits it had; adding and subtracting would drift."""
    for parameter, value in before:
        parameter.copy_(value)


@contextmanager
def uphill(parameters: Iterable[Parameter], *, rho: float = RHO, is_adaptive: bool = False) -> Iterator[bool]:
    """Parameters moved uphill within the block, their gradients gone; False and unmoved where there is no uphill."""
    parameters = list(parameters)
    before = climb(parameters, rho=rho, is_adaptive=is_adaptive)
    try:
        if before:
            for parameter in parameters:
                parameter.grad = None
        yield bool(before)
    finally:
        come_back(before)


class SharpnessAware:
    """`climb` and a step of an optimizer as two calls, for loops that are written that way; holds no state of its own.

    Args:
        groups: Parameter groups.
        optimizer: The class of the optimizer that makes the step.
        rho: How far to climb.
        adaptive: Whether far is meant in proportion to the weights.
        options: Of the optimizer.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        optimizer: type[torch.optim.Optimizer],
        *,
        rho: float = RHO,
        adaptive: bool = False,
        **options: Any,
    ) -> None:
        self.optimizer = optimizer(groups, **options)
        self.rho, self.adaptive = rho, adaptive
        self._before: Places = []

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def first_step(self, zero_grad: bool = True) -> None:
        """Climb."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._before = climb(parameters, rho=self.rho, is_adaptive=self.adaptive)
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = True) -> None:
        """Come back, and make the step with the gradients from uphill."""
        come_back(self._before)
        self._before = []
        self.optimizer.step()
        if zero_grad:
            self.zero_grad()

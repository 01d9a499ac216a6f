"""Second derivatives of a function that autograd can follow, as an operator's backward pass needs them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def second_derivatives(
    compute: Callable[[dict[str, Tensor]], Sequence[Tensor]],
    given: dict[str, Tensor],
    seeds: dict[str, Tensor | None],
    directions: Sequence[Tensor | None],
) -> dict[str, Tensor | None]:
    """The derivative of a function's gradients along `directions`, by the name of what it is taken for.

    Args:
        compute: The function.
        given: What it takes.
        seeds: What came for its outputs when the gradients were taken, in their order; None stands for zero.
        directions: One for each of `given`; None stands for zero.
    """
    go_on = torch.is_grad_enabled()  # off unless a third derivative is wanted
    with torch.enable_grad():
        inputs = {name: _alias(x) for name, x in given.items()}
        came = {name: _alias(x) for name, x in seeds.items() if x is not None}
        outputs = dict(zip(seeds, compute(inputs), strict=True))
        reached = [name for name in came if outputs[name].requires_grad]  # of no tokens, none is
        first = torch.autograd.grad(
            [outputs[name] for name in reached],
            list(inputs.values()),
            [came[name] for name in reached],
            create_graph=True,
            materialize_grads=True,
        )
        moved = [(x, v) for x, v in zip(first, directions, strict=True) if v is not None and x.requires_grad]
        wanted = inputs | came
        second = torch.autograd.grad(
            [x for x, _ in moved], list(wanted.values()), [v for _, v in moved], create_graph=go_on, allow_unused=True
        )
    return dict(zip(wanted, second, strict=True))


def _alias(x: Tensor) -> Tensor:
    """The same values as a node of its own: u may be computed from delta, and still each wants its own derivative."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()

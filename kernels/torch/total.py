"""A volume in the making: what blocks of tokens add to it, in the type of the arithmetic."""

import math

import torch
from torch import Tensor


class Total:
    """Zero at first, a place to add to, and the result.

    Args:
        target: (k, b, *space, *), memory for the result.
        dims: How many axes space has.
        dtype: The type to add up in.
    """

    def __init__(self, target: Tensor, dims: int, dtype: torch.dtype) -> None:
        self.target = target
        self.is_target = target.dtype == dtype and (dims == 1 or target.is_contiguous())
        if self.is_target:
            self.sum = target.zero_().flatten(2, 1 + dims)  # (k, b, v, *)
        else:
            shape = (*target.shape[:2], math.prod(target.shape[2 : 2 + dims]), *target.shape[2 + dims :])
            self.sum = target.new_zeros(shape, dtype=dtype)

    def finished(self) -> Tensor:
        """The result."""
        return self.target if self.is_target else self.target.copy_(self.sum.view(self.target.shape))

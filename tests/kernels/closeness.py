"""How close a kernel must come to the float64 oracle: one budget per dtype, for outputs and gradients alike."""

import torch
from torch import Tensor

# Relative error in the 2-norm. float32: 84 units of 2**-23, for exponents up to some tens, each off by half a unit
# of its size, and for sums that lose a unit every few terms; the kernels stay below 2e-6. float64: 84 of its own units.
BUDGETS = {torch.float32: 1e-5, torch.float64: 1e-5 * 2.0**-29}
# 16-bit results may be this much further off than the float64 result is when it is rounded to the same dtype ...
ROUNDING_BUDGET = 1.5
# ... which for evenly spread mantissas is this many units, relative; a few elements can be luckier.
TYPICAL_ROUNDING = 0.2


def assert_within(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Every tensor is as near to the expected float64 one as its own dtype allows."""
    assert actual.keys() == expected.keys(), f"got {sorted(actual)}, expected {sorted(expected)}"
    for name, x in actual.items():
        assert x.shape == expected[name].shape, f"{name}: shape {tuple(x.shape)}, not {tuple(expected[name].shape)}"
        error, allowed = _norm(x.double() - expected[name]), _allowed(expected[name], x.dtype)
        assert error <= allowed, f"{name}: {x.dtype} is {error:.3g} off, {allowed:.3g} allowed"  # false for nan too


def _allowed(expected: Tensor, dtype: torch.dtype) -> float:
    subnormal = torch.finfo(dtype).tiny * expected.numel() ** 0.5  # below it nothing has full precision
    if dtype in BUDGETS:
        return BUDGETS[dtype] * _norm(expected) + subnormal
    rounding = _norm(expected.to(dtype).double() - expected)
    return ROUNDING_BUDGET * max(rounding, TYPICAL_ROUNDING * torch.finfo(dtype).eps * _norm(expected)) + subnormal


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x).item()

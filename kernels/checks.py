"""What the front doors refuse alike, each in one sentence with the values in it."""

import torch
from torch import Tensor


def check_types(tensors: dict[str, Tensor], out_dtype: torch.dtype | None) -> None:
    """Refuse what is not real, or lies on another device than u."""
    u = tensors["u"]
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be a real floating-point tensor, got {x.dtype}")
        if x.device != u.device:
            raise ValueError(f"{name} must be on the device of u, {u.device}; got {x.device}")
    if out_dtype is not None and not out_dtype.is_floating_point:
        raise ValueError(f"out_dtype must be a real floating-point type, got {out_dtype}")


def check_axes(name: str, x: Tensor, axes: str) -> None:
    """Refuse a tensor that has more or fewer axes; each letter stands for one."""
    if x.dim() != len(axes):
        raise ValueError(f"{name} must have {len(axes)} axes, {', '.join(axes)}; got shape {tuple(x.shape)}")


def check_shape(name: str, x: Tensor, axes: str, sizes: dict[str, int]) -> None:
    """Refuse a tensor that has another shape than its axes."""
    expected = tuple(sizes[axis] for axis in axes)
    if tuple(x.shape) != expected:
        raise ValueError(f"{name} must have the shape ({', '.join(axes)}), {expected}; got {tuple(x.shape)}")


def is_differentiated(tensors: dict[str, Tensor]) -> bool:
    """Whether a backward pass may come."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return True  # torch traces once more without gradients, and wants the same graph
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors.values())

"""The depthwise convolution of a volume along a route."""

import torch
from torch import Tensor

from umamba_seg.kernels import conv_ops
from umamba_seg.kernels.checks import check_axes, check_shape, check_types
from umamba_seg.kernels.dispatch import requested
from umamba_seg.kernels.route_arguments import told
from umamba_seg.kernels.routes import AXES

ACTIVATIONS = (None, "silu")


def causal_conv(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    route: str | Tensor,
    centred: bool = False,
    activation: str | None = "silu",
    reset: int | Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve each channel of a channels-last volume along a route. Nothing is permuted, flipped or copied.

    The arithmetic is float32, or float64 if a tensor is.

    Args:
        u: (b, *space, d).
        weight: (d, w): a token sees w - 1 tokens before it and, with the last weight, itself.
        bias: (d,).
        route: A string or an index table, as `scan_volume` takes them. A table names no voxel twice; tokens that are
            not there are left out, so that those beside them are neighbours. Voxels that it does not name get zero.
        centred: Whether a token sees (w - 1) // 2 tokens before it and w // 2 behind it instead.
        activation: What follows: "silu" or None.
        reset: Where pieces end, as in `scan_volume`. Beyond both ends of a piece are zeros.
        backend: "auto" takes the first that can run u; a name is never replaced.

    Returns:
        y, with the shape and the type of u.

    Raises:
        ValueError: Shapes, types, devices, route or options that do not fit.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}; got {activation!r}")
    dims = u.dim() - 2
    if dims not in AXES:
        raise ValueError(f"a volume has 1 to 3 spatial axes between batch and channels; u is {tuple(u.shape)}")
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # there, sizes are no numbers
        _check(u, weight, bias)
    named, table, offsets = told([route], reset, batch=u.shape[0], device=u.device, dims=dims)
    return conv_ops.conv_forward(
        u, weight, bias, table, offsets, named, centred, activation == "silu", requested(backend, "conv")
    )


def _check(u: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    tensors = {"u": u, "weight": weight} | ({} if bias is None else {"bias": bias})
    check_types(tensors, None)
    check_axes("weight", weight, "dw")
    sizes = {"d": u.shape[-1], "w": weight.shape[1]}
    if not sizes["d"] or not sizes["w"]:
        raise ValueError(f"there must be channels and weights; got u {tuple(u.shape)} and weight {tuple(weight.shape)}")
    check_shape("weight", weight, "dw", sizes)
    if bias is not None:
        check_shape("bias", bias, "d", sizes)

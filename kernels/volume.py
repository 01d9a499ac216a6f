"""The selective scan of a volume along several routes at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from umamba_seg.kernels import ops
from umamba_seg.kernels.checks import check_shape, check_types, is_differentiated
from umamba_seg.kernels.dispatch import requested
from umamba_seg.kernels.route_arguments import Reset, told
from umamba_seg.kernels.routes import AXES, Order, orders

MERGES = ("sum", "mean", "stack", "concat")
EXCLUSIVE = (None, "own", "shift")


def scan_volume(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    routes: Sequence[str | Tensor],
    delta_softplus: bool = False,
    reset: Reset | Sequence[Reset] = None,
    merge: str = "sum",
    weights: Tensor | None = None,
    decay_scale: Sequence[float] | None = None,
    exclusive: str | None = None,
    exact_gain: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    out_dtype: torch.dtype | None = None,
    deterministic: bool | None = None,
    backend: str = "auto",
    spatial_dims: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan a channels-last volume along routes and merge what each gives. Nothing is permuted, flipped or copied.

    Each route is the recurrence of `selective_scan` over its tokens, y_k = C h + D u; the merge of all y_k is gated by
    silu(z). u, delta, A, B, C, D and delta_bias may have a route axis in front, else all routes share them.

    Args:
        u: (b, *space, d) or (k, b, *space, d) for k routes; so is `delta`.
        A: (d, n) or (k, d, n).
        B: (b, *space, n) or (k, b, *space, n). So is `C`.
        D: (d,) or (k, d).
        z: (b, *space, d).
        delta_bias: (d,) or (k, d).
        routes: Each a string or an index table. A string names the axes z, y, x, slow to fast, each with a sign:
            "zyx" is the order of memory, "-z-y-x" the same backwards. One axis, like "-y", is the lines along it.
            A table (t,) or (b, t), int32 or int64, has the number of a voxel for each token, -1 for a token that is not
            there; tables shorter than the longest are filled up with these.
            Voxels that it does not name get zero. With merge="sum" it may name a voxel more than once.
        delta_softplus: Whether dt = softplus(delta + delta_bias), else it is the sum itself.
        reset: Where the state starts anew: None is at each line for lines, else never. A number is after so many
            tokens, on lines counted from the start of each. A tensor (s + 1,), from 0 to the number of tokens, says
            where.
            A list has one of these for each route; where one has fewer offsets than another, empty pieces follow.
        merge: "sum" and "mean" over the routes, (b, *space, d); "stack", (k, b, *space, d); "concat" gives d / k
            channels to each route, in their order: then A, D and delta_bias have a row for each of the d channels.
        weights: (k,) or (b, k, d), with 1 for b or d where it is the same for all: what y_k is multiplied with.
        decay_scale: One number for each route, which multiplies its dt: millimetres per voxel along it, say.
        exclusive: "own" leaves out the input of the token itself: y = C exp(dt A) h of the token before, + D u.
            "shift" gives each token what C h was at the token before it on the route, + D u.
        exact_gain: Whether u B enters with (exp(dt A) - 1) / A, which is exact for an input that does not change within
            a step, else with dt.
        initial_state: (k, b, s, d, n) for s pieces of a route; routes with fewer leave the rest unused.
        return_last_state: Whether to return the states behind the last tokens too, shaped like the initial ones.
        out_dtype: The type of y, that of u unless given.
        deterministic: Whether the same call must give the same bits, gradients included; None leaves it to the backend.
        backend: "auto" takes the first that can run u; a name is never replaced.
        spatial_dims: How many axes space has; needed only where neither a raster nor a tensor without route axis tells.

    Raises:
        ValueError: Shapes, types, devices, routes or options that do not fit.
        BackendUnavailableError: The backend asked for cannot run here.
    """
    routes = [routes] if isinstance(routes, str) else list(routes)
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    tensors |= {"weights": weights, "initial_state": initial_state}
    given = {name: x for name, x in tensors.items() if x is not None}
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # there, sizes are no numbers
        check_types(given, out_dtype)
    _check_options(merge, exclusive, decay_scale, len(routes))
    dims = spatial_dims or _spatial_dims(routes, given)
    if merge == "concat":
        given = _split_channels(given, len(routes))
    canonical = {name: _with_route_axis(name, x, dims) for name, x in given.items()}
    u = canonical["u"]
    named, table, offsets = told(routes, reset, batch=u.shape[1], device=u.device, dims=dims)
    if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        _check_shapes(given, canonical, orders(named, u.shape[2:-1], table, offsets), dims)
    y, last_state, _ = ops.scan_forward(
        *(canonical.get(name) for name in tensors), table, offsets, named, list(decay_scale or ()),
        1 / len(routes) if merge == "mean" else 1.0, delta_softplus, exact_gain, exclusive or "",
        merge in ("stack", "concat"), return_last_state, is_differentiated(canonical),
        out_dtype, deterministic, requested(backend),
    )  # fmt: skip
    if merge == "concat":
        y = y.movedim(0, -2).flatten(-2)
    elif merge != "stack":
        y = y[0]
    return (y, last_state) if return_last_state else y


def _check_options(merge: str, exclusive: str | None, decay_scale: Sequence[float] | None, routes: int) -> None:
    if not routes:
        raise ValueError("there must be at least one route")
    if merge not in MERGES:
        raise ValueError(f"merge must be one of {', '.join(map(repr, MERGES))}; got {merge!r}")
    if exclusive not in EXCLUSIVE:
        raise ValueError(f"exclusive must be one of {', '.join(map(repr, EXCLUSIVE))}; got {exclusive!r}")
    if decay_scale is not None and (len(decay_scale) != routes or min(decay_scale) <= 0):
        raise ValueError(f"decay_scale must have a positive number for each of the {routes} routes; got {decay_scale}")


def _spatial_dims(routes: Sequence[str | Tensor], given: dict[str, Tensor]) -> int:
    named = [sum(letter in AXES[3] for letter in route) for route in routes if isinstance(route, str)]
    dims = max([n for n in named if n > 1] or [min(given[name].dim() for name in ("u", "delta", "B", "C")) - 2])
    if "z" in given:
        dims = min(dims, given["z"].dim() - 2)
    if dims not in AXES:
        raise ValueError(f"a volume has 1 to 3 spatial axes between batch and channels; u is {tuple(given['u'].shape)}")
    return dims


def _split_channels(given: dict[str, Tensor], routes: int) -> dict[str, Tensor]:
    """Make the channels of each route an axis in front, which is no copy."""
    channels = given["u"].shape[-1]
    if channels % routes:
        raise ValueError(f"merge='concat' needs channels that the {routes} routes divide; u has {channels}")
    wide = [name for name in ("u", "delta", "z") if name in given]
    rows = [name for name in ("A", "D", "delta_bias") if name in given]
    for name in wide + rows:
        axis = -1 if name in wide else 0
        if given[name].shape[axis] != channels:
            raise ValueError(f"{name} must have the {channels} channels of u; got {tuple(given[name].shape)}")
    split = {name: given[name].unflatten(-1, (routes, -1)).movedim(-2, 0) for name in wide}
    return given | split | {name: given[name].unflatten(0, (routes, -1)) for name in rows}


def _with_route_axis(name: str, x: Tensor, dims: int) -> Tensor:
    if name == "weights":
        return x[:, None, None] if x.dim() == 1 else x.movedim(1, 0)
    if name == "initial_state":
        return x
    full = {"A": 3, "D": 2, "delta_bias": 2}.get(name, dims + 3)
    if x.dim() not in (full, full - 1):
        raise ValueError(f"{name} must have {full - 1} axes, or {full} with one for routes; got {tuple(x.shape)}")
    x = x if x.dim() == full else x[None]
    return x.unsqueeze(-2) if name in ("B", "C") else x


def _check_shapes(given: dict[str, Tensor], canonical: dict[str, Tensor], walked: Sequence[Order], dims: int) -> None:
    u, A, routes = canonical["u"], canonical["A"], len(walked)
    space = dict(zip(AXES[dims], u.shape[2:-1], strict=True))
    sizes = space | {"b": u.shape[1], "d": u.shape[-1], "n": A.shape[-1], "g": 1}
    sizes["s"] = max(order.pieces for order in walked)
    if not sizes["d"] or not sizes["n"]:
        raise ValueError(
            f"there must be channels and states; got u {tuple(given['u'].shape)} and A {tuple(given['A'].shape)}"
        )
    like_u = f"kb{AXES[dims]}d"
    axes = {"u": like_u, "delta": like_u, "z": like_u, "A": "kdn", "D": "kd", "delta_bias": "kd", "weights": "kbd"}
    axes |= dict.fromkeys(("B", "C"), f"kb{AXES[dims]}gn") | {"initial_state": "kbsdn"}
    for name, x in canonical.items():
        expected = sizes | {"k": routes if name in ("weights", "initial_state") or x.shape[0] != 1 else 1}
        if name == "weights" and x.dim() == 3:
            expected |= {axis: 1 for axis, size in zip("kbd", x.shape, strict=True) if axis != "k" and size == 1}
        if tuple(x.shape) != tuple(expected[axis] for axis in axes[name]):
            check_shape(name, given[name], _axes_as_given(name, given[name], axes[name]), expected)
            raise AssertionError(f"{name} fits as it was given, and not as it is used: {tuple(x.shape)}")


def _axes_as_given(name: str, x: Tensor, axes: str) -> str:
    """The axes of a tensor as the caller has them: with one for the routes only if it has one, none for groups."""
    if name == "weights":
        return "k" if x.dim() == 1 else "bkd"
    axes = axes.replace("g", "")
    return axes.removeprefix("k") if x.dim() < len(axes) and name != "initial_state" else axes

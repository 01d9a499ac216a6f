"""Mixers as plain loops over voxels, in the precision of their inputs. Slow, obvious, differentiable.

Written from the formulas of the papers. A map is (b, *s, c); weights go by the names that checkpoints have.
Letters: b batch, l voxels, c channels, e inner channels, n states, r rank of delta, w width of a convolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def branched(x: Tensor, weights: Weights, branches: list[tuple[str, list[int]]]) -> Tensor:
    """One in_proj and out_proj around branches; each a suffix of weights and the numbers of the voxels in its order."""
    tokens = x.flatten(1, -2)  # (b, l, c)
    xz = torch.einsum("blc,fc->blf", tokens, weights["in_proj.weight"])
    total = 0
    for suffix, order in branches:
        y = mamba_branch(xz[:, order], weights, suffix)  # x and z both in this order
        back = [order.index(voxel) for voxel in range(len(order))]
        total = total + y[:, back]
    return torch.einsum("ble,ce->blc", total, weights["out_proj.weight"]).view(x.shape)


def mamba_branch(xz: Tensor, weights: Weights, suffix: str) -> Tensor:
    """(b, l, 2e) in scan order -> gated output (b, l, e) in scan order."""
    A = -torch.exp(weights[f"A{suffix}_log"])  # (e, n)
    inner, states = A.shape
    kernel, bias = weights[f"conv1d{suffix}.weight"][:, 0], weights[f"conv1d{suffix}.bias"]
    to_delta, delta_bias = weights[f"dt_proj{suffix}.weight"], weights[f"dt_proj{suffix}.bias"]
    rank, width = to_delta.shape[1], kernel.shape[1]
    x, z = xz[..., :inner], xz[..., inner:]
    h = torch.zeros(x.shape[0], inner, states, dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        u = silu(bias + sum(kernel[:, width - 1 - back] * x[:, t - back] for back in range(min(width, t + 1))))
        selection = torch.einsum("be,fe->bf", u, weights[f"x_proj{suffix}.weight"])
        B, C = selection[:, rank : rank + states], selection[:, rank + states :]
        dt = torch.log1p(torch.exp(selection[:, :rank] @ to_delta.T + delta_bias))  # (b, e)
        h = torch.exp(dt[..., None] * A) * h + dt[..., None] * B[:, None] * u[..., None]
        y = torch.einsum("ben,bn->be", h, C) + weights[f"D{suffix}"] * u
        outputs.append(y * silu(z[:, t]))
    return torch.stack(outputs, dim=1)


def chunk_order(voxels: int, chunks: int) -> list[int]:
    """Cut the voxels into equal chunks; the first voxel of every chunk, then the second of every chunk, and so on."""
    size = voxels // chunks
    return [chunk * size + place for place in range(size) for chunk in range(chunks)]


def gated(x: Tensor, weights: Weights, look: Callable[[Tensor], Tensor]) -> Tensor:
    """The layer around a look, which is given u (b, *s, e) and gives the same."""
    inner = weights["D"].shape[0]
    vz = torch.einsum("b...c,fc->b...f", x, weights["in_proj.weight"])
    u = silu(depthwise(vz[..., :inner], weights["conv.weight"], weights["conv.bias"]))
    y = layer_norm(look(u) + weights["D"] * u) * weights["norm.weight"] + weights["norm.bias"]
    return torch.einsum("b...e,ce->b...c", y * silu(vz[..., inner:]), weights["out_proj.weight"])


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A sum over neighbours (b, *s, c); those outside of the map are zero. The kernel is (c, 1, *k), odd."""
    size, widths = x.shape[1:-1], kernel.shape[2:]
    rows = []
    for place in product(*map(range, size)):
        total = bias.expand(x.shape[0], -1)
        for tap in product(*map(range, widths)):
            there = tuple(i + j - w // 2 for i, j, w in zip(place, tap, widths, strict=True))
            if all(0 <= i < n for i, n in zip(there, size, strict=True)):
                total = total + kernel[(slice(None), 0, *tap)] * x[(slice(None), *there)]
        rows.append(total)
    return torch.stack(rows, dim=1).view(x.shape)


def layer_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)


def lines(size: tuple[int, ...], axis: int, sign: str) -> list[list[int]]:
    """The numbers of the voxels on each line along an axis, in the direction of the sign."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, place in enumerate(product(*map(range, size))):
        found.setdefault(place[:axis] + place[axis + 1 :], []).append(number)
    return [line if sign == "+" else line[::-1] for line in found.values()]


@dataclass(frozen=True)
class Route:
    """One route of the layer: its lines, the set of decays it uses and how far apart its voxels are."""

    lines: list[list[int]]
    decays: int
    step: float = 1


RoutesOf = Callable[[tuple[int, ...]], list[Route]]


def select(u: Tensor, weights: Weights, routes: int, has_norm: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Step sizes of each set (b, l, e), B and C of each route (b, l, n)."""
    sets, _, rank = weights["dt_weight"].shape
    states = weights["A_log"].shape[-1]
    p = torch.einsum("ble,fe->blf", u, weights["x_proj.weight"])
    parts = [p[..., s * rank : (s + 1) * rank] for s in range(sets)]
    rest = p[..., sets * rank :]
    dt = [
        torch.log1p(torch.exp(torch.einsum("blr,er->ble", parts[s], weights["dt_weight"][s]) + weights["dt_bias"][s]))
        for s in range(sets)
    ]
    coefficients = [rest[..., i * states : (i + 1) * states] for i in range(2 * routes)]
    if has_norm:
        biases = [*weights["b_bias"], *weights["c_bias"]]
        rms = [torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) for x in coefficients]
        coefficients = [x / r + bias for x, r, bias in zip(coefficients, rms, biases, strict=True)]
    return dt, coefficients[:routes], coefficients[routes:]


def scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    lines: list[list[int]],
    *,
    is_exclusive=False,
    is_exact=False,
) -> Tensor:
    """The recurrence along each line with a state of its own; (b, l, e)."""
    y: dict[int, Tensor] = {}
    for line in lines:
        h = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype)
        for voxel in line:
            decay = torch.exp(dt[:, voxel, :, None] * A)
            gain = (decay - 1) / A if is_exact else dt[:, voxel, :, None]
            decayed = decay * h
            h = decayed + gain * u[:, voxel, :, None] * B[:, voxel, None]
            y[voxel] = ((decayed if is_exclusive else h) * C[:, voxel, None]).sum(-1)
    return torch.stack([y[voxel] for voxel in range(u.shape[1])], dim=1)


def routed(
    x: Tensor,
    weights: Weights,
    routes: list[Route],
    *,
    has_norm: bool = True,
    is_exclusive: bool = False,
    is_exact: bool = False,
) -> Tensor:
    """The sum of all routes that have more than one voxel on a line."""

    def look(u: Tensor) -> Tensor:
        flat = u.flatten(1, -2)
        dt, B, C = select(flat, weights, len(routes), has_norm)
        seen = torch.zeros_like(flat)
        for k, route in enumerate(routes):
            if len(route.lines[0]) > 1:
                A = -torch.exp(weights["A_log"][route.decays])
                y = scan(
                    flat, route.step * dt[route.decays], A, B[k], C[k], route.lines,
                    is_exclusive=is_exclusive, is_exact=is_exact,
                )  # fmt: skip
                seen = seen + weights.get("route_weights", torch.ones(len(routes)))[k] * y
        return seen.view(u.shape)

    return gated(x, weights, look)


def cascaded(x: Tensor, weights: Weights, turns: list[dict[int, Route]], routes: int) -> Tensor:
    """Turn after turn, each over what the one before it saw, normed."""

    def look(u: Tensor) -> Tensor:
        read = u.flatten(1, -2)
        dt, B, C = select(read, weights, routes, has_norm=True)
        seen = read
        for number, turn in enumerate(turns):
            read = seen if number == 0 else layer_norm(seen)
            seen = sum(
                scan(read, dt[r.decays], -torch.exp(weights["A_log"][r.decays]), B[k], C[k], r.lines)
                for k, r in turn.items()
            )
        return seen.view(u.shape)

    return gated(x, weights, look)


def grouped(x: Tensor, weights: Weights, routes: list[Route], widths: list[int]) -> Tensor:
    """Each route on channels of its own."""

    def look(u: Tensor) -> Tensor:
        flat = u.flatten(1, -2)
        dt, B, C = select(flat, weights, len(routes), has_norm=True)
        A, seen, end = -torch.exp(weights["A_log"][0]), [], 0
        for k, (route, width) in enumerate(zip(routes, widths, strict=True)):
            own = slice(end, end + width)
            y = scan(flat[..., own], dt[0][..., own], A[own], B[k], C[k], route.lines)
            seen.append(y if len(route.lines[0]) > 1 else 0 * y)
            end += width
        return torch.cat(seen, dim=-1).view(u.shape)

    return gated(x, weights, look)


def coarse(x: Tensor, weights: Weights, factors: list[int], routes_of: RoutesOf) -> Tensor:
    """All routes on means over boxes, interpolated back; `routes_of` makes the routes for the size of the copy."""

    def look(u: Tensor) -> Tensor:
        small = u
        for axis, factor in enumerate(factors):
            pieces = [piece.mean(axis + 1, keepdim=True) for piece in small.split(factor, dim=axis + 1)]
            small = torch.cat(pieces, dim=axis + 1)
        routes = routes_of(tuple(small.shape[1:-1]))
        flat = small.flatten(1, -2)
        dt, B, C = select(flat, weights, len(routes), has_norm=True)
        seen = sum(
            scan(flat, r.step * dt[r.decays], -torch.exp(weights["A_log"][r.decays]), B[k], C[k], r.lines)
            for k, r in enumerate(routes)
        ).view(small.shape)
        for axis, size in enumerate(u.shape[1:-1]):
            seen = stretched(seen, axis + 1, size)
        return seen

    return gated(x, weights, look)


def stretched(x: Tensor, axis: int, size: int) -> Tensor:
    """Linear between the centres of voxels, constant beyond those of the first and the last."""
    have, rows = x.shape[axis], []
    for i in range(size):
        place = min(max((i + 0.5) * have / size - 0.5, 0), have - 1)
        below = int(place)
        above = min(below + 1, have - 1)
        rows.append((1 - place + below) * x.select(axis, below) + (place - below) * x.select(axis, above))
    return torch.stack(rows, dim=axis)


def convolved(x: Tensor, weights: Weights) -> Tensor:
    """A dense convolution, and behind it, where there is one, leaky ReLU and a pointwise one."""
    kernel = weights["conv.weight"]
    widths = kernel.shape[2:]
    size, rows = x.shape[1:-1], []
    for place in product(*map(range, size)):
        total = weights["conv.bias"].expand(x.shape[0], -1)
        for tap in product(*map(range, widths)):
            there = tuple(i + j - w // 2 for i, j, w in zip(place, tap, widths, strict=True))
            if all(0 <= i < n for i, n in zip(there, size, strict=True)):
                total = total + x[(slice(None), *there)] @ kernel[(slice(None), slice(None), *tap)].T
        rows.append(total)
    y = torch.stack(rows, dim=1).view(*x.shape[:-1], -1)
    if "point.weight" not in weights:
        return y
    y = torch.where(y > 0, y, 0.01 * y)
    return y @ weights["point.weight"].flatten(1).T + weights["point.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def large_kernel(x: Tensor, weights: Weights) -> Tensor:
    y = layer_norm(depthwise(x, weights["conv.weight"], weights["conv.bias"]))
    y = y * weights["norm.weight"] + weights["norm.bias"]
    y = gelu(y @ weights["fc1.weight"].T + weights["fc1.bias"])
    return y @ weights["fc2.weight"].T + weights["fc2.bias"]


def mambaout(x: Tensor, weights: Weights) -> Tensor:
    channels, hidden = weights["fc2.weight"].shape
    y = x @ weights["fc1.weight"].T + weights["fc1.bias"]
    gate, still, v = y[..., :hidden], y[..., hidden:-channels], y[..., -channels:]
    mixed = torch.cat([still, depthwise(v, weights["conv.weight"], weights["conv.bias"])], dim=-1)
    return (gelu(gate) * mixed) @ weights["fc2.weight"].T + weights["fc2.bias"]

"""Scans along several routes at once, from one convolution and one product: the core of `axes` and `routes`.

    p = x_proj u                        delta parts of each set of decays, B and C of each route
    dt = softplus(dt_weight p + dt_bias) * mm
    B = p_B / rms(p_B) + b_bias,        C alike, over the n states
    look(u) = sum over routes of w * scan(u; dt, A, B, C)

Shapes: b batch, s spatial axes, c channels, e inner channels, n states, r rank of delta, k routes, m sets of decays.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from umamba_seg.errors import UsageError
from umamba_seg.kernels import scan_volume
from umamba_seg.kernels.problem import CHECKPOINT_STEP
from umamba_seg.kernels.routes import AXES
from umamba_seg.mixers.branches import start_delta, widened
from umamba_seg.mixers.gated_layer import GatedLayer
from umamba_seg.mixers.order import reverse
from umamba_seg.mixers.pooling import pooled, spread

TIES = ("none", "pair", "all")
MODES = ("parallel", "cascade")
MILLIMETRES = ("axis", "off", "absolute")
MOST_ANISOTROPIC = 16.0
EPS = 1e-5


class RouteLayer(GatedLayer):
    """Looks along routes; see `AxesMixer` for the options.

    Args:
        channels: c of the feature map.
        routes: Signed rasters, or signed axes for lines along them, as `scan_volume` takes them with all signs.
        kernel_size: Of the depthwise convolution, one number per axis.
        spacing: Edges of a voxel in mm, one per axis.
        states: n.
        expand: e / c.
        tie: Which routes have the same delta and A.
        mode: Whether all routes see the map itself, or each pair what the pair behind it in the list saw.
        group: Whether each route has channels of its own.
        scale: How many voxels a voxel of the scanned copy has on each axis.
        exclusive: Whether a voxel is left out of what it sees.
        bc_norm: Whether B and C are normed over the states.
        mm: What a step along lines counts.
        learns_weights: Whether each route has a weight that is learned.
        zero_init: See `GatedLayer`.
    """

    def __init__(
        self,
        channels: int,
        *,
        routes: Sequence[str],
        kernel_size: Sequence[int],
        spacing: Sequence[float] | None,
        states: int,
        expand: int,
        tie: str,
        mode: str,
        group: bool,
        scale: int,
        exclusive: bool,
        bc_norm: bool,
        mm: str,
        learns_weights: bool,
        zero_init: bool,
    ) -> None:
        _check(tie, mode, mm, scale, group=group, exclusive=exclusive)
        inner = expand * channels
        super().__init__(channels, inner, kernel_size, zero_init=zero_init)
        self.routes, self.mode, self.group, self.exclusive, self.mm = tuple(routes), mode, group, exclusive, mm
        self.states, self.rank = states, math.ceil(channels / 16)
        # across thick slices, where the plan does not convolve, nothing is pooled either
        self.pool = tuple(scale if width > 1 else 1 for width in kernel_size)
        self.sets = _sets_of_decays(self.routes, "all" if group else tie)
        self.steps = _steps(self.routes, spacing, mm, self.pool)
        k, m = len(routes), len(self.sets)
        if group and inner < k:
            raise UsageError(f"{k} routes cannot share {inner} channels, one group each", code="bad-mixer-option")

        self.x_proj = nn.Linear(inner, m * self.rank + 2 * k * states, bias=False)
        self.dt_weight = nn.Parameter(torch.empty(m, inner, self.rank))
        self.dt_bias = nn.Parameter(torch.empty(m, inner))
        for weight, bias in zip(self.dt_weight, self.dt_bias, strict=True):
            start_delta(weight, bias)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(m, inner, 1))
        self.b_bias = nn.Parameter(torch.zeros(k, states)) if bc_norm else None
        self.c_bias = nn.Parameter(torch.zeros(k, states)) if bc_norm else None
        self.route_weights = nn.Parameter(torch.ones(k)) if learns_weights else None

    def saved_elements(self, tokens: int) -> int:
        """Numbers kept for the backward pass when the scan computes its states again instead of keeping them.

        On lines of more than 64 voxels it keeps a few of them, which are not counted.
        """
        k, inner = len(self.routes), self.inner
        scanned = tokens // math.prod(self.pool)
        coefficients = 2 * k * self.states
        voxel = len(self.sets) * (self.rank + inner)  # delta, and the part of the product that it comes from
        voxel += 2 * (coefficients + k)  # B and C as they come and as they are used, and their sizes
        if self.mode == "cascade":
            turns = len(_sets_of_decays(self.routes, "pair"))
            voxel += 2 * inner * (turns - 1)  # what is seen on the way, and its norm
        rasters = sum(len(route) > 2 for route in self.routes)
        if any(n > 1 for n in self.pool):
            voxel += inner  # the pooled copy
        kept = rasters * inner * self.states * scanned // CHECKPOINT_STEP
        return tokens * self._saved_around_look() + scanned * voxel + kept

    def _look(self, u: Tensor) -> Tensor | None:
        size = u.shape[1:-1]
        u = pooled(u, self.pool)
        used = [k for k, route in enumerate(self.routes) if not _has_one_voxel(route, u.shape[1:-1])]
        if not used:
            return None
        selection, B, C = self._select(u)
        if self.group:
            seen = self._by_groups(used, u, selection[0], B, C)
        elif self.mode == "cascade":
            seen = self._in_turn(used, u, selection, B, C)
        else:
            scans = [self._scan(s, ks, u, selection[s], B, C) for s, ks in self._sets_with(used)]
            seen = reduce(torch.add, scans)
        return spread(seen, size)

    def _select(self, u: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Delta of each set (b, *s, e) without bias, and B and C of each route (b, *s, n)."""
        m, k = len(self.sets), len(self.routes)
        p = self.x_proj(u)
        parts, B, C = p.split((m * self.rank, k * self.states, k * self.states), dim=-1)
        delta = [widened(part, w) for part, w in zip(parts.split(self.rank, dim=-1), self.dt_weight, strict=True)]
        B, C = (x.unflatten(-1, (k, self.states)) for x in (B, C))
        if self.b_bias is not None and self.c_bias is not None:
            B, C = _over_rms(B) + self.b_bias, _over_rms(C) + self.c_bias
        return delta, B.unbind(-2), C.unbind(-2)

    def _sets_with(self, used: Sequence[int]) -> Iterable[tuple[int, list[int]]]:
        """The sets that have a route in `used`, each with these routes."""
        for s, members in enumerate(self.sets):
            if routes := [k for k in members if k in used]:
                yield s, routes

    def _in_turn(
        self, used: Sequence[int], u: Tensor, delta: Sequence[Tensor], B: Sequence[Tensor], C: Sequence[Tensor]
    ) -> Tensor:
        """The last axis first, and each further one over what was seen along the one before it."""
        seen = None
        for pair in reversed(_sets_of_decays(self.routes, "pair")):
            if turn := [k for k in pair if k in used]:
                read = u if seen is None else F.layer_norm(seen, (self.inner,))
                seen = reduce(torch.add, [self._scan(s, ks, read, delta[s], B, C) for s, ks in self._sets_with(turn)])
        assert seen is not None  # `used` is not empty
        return seen

    def _by_groups(
        self, used: Sequence[int], u: Tensor, delta: Tensor, B: Sequence[Tensor], C: Sequence[Tensor]
    ) -> Tensor:
        """Each route on its channels; those of routes that have nowhere to go see nothing."""
        sizes = [self.inner // len(self.routes) + (k < self.inner % len(self.routes)) for k in range(len(self.routes))]
        seen, end = [], 0
        for k, width in enumerate(sizes):
            channels = slice(end, end := end + width)
            if k in used:
                seen.append(self._scan(0, [k], u[..., channels], delta[..., channels], B, C, channels))
            else:
                seen.append(torch.zeros_like(u[..., channels], dtype=_at_least_float32(u)))
        return torch.cat(seen, dim=-1)

    def _scan(
        self,
        decays: int,
        routes: Sequence[int],
        u: Tensor,
        delta: Tensor,
        B: Sequence[Tensor],
        C: Sequence[Tensor],
        channels: slice = slice(None),
    ) -> Tensor:
        """One go along routes that share a set of decays; the kernel computes those of lines there and back once."""
        y = scan_volume(
            u,
            delta,
            -self.A_log[decays, channels].exp(),  # negative, so that every state decays
            torch.stack([B[k] for k in routes]),
            torch.stack([C[k] for k in routes]),
            delta_bias=self.dt_bias[decays, channels],
            delta_softplus=True,
            routes=[self.routes[k] for k in routes],
            weights=None if self.route_weights is None else torch.stack([self.route_weights[k] for k in routes]),
            decay_scale=[self.steps[k] for k in routes],
            exclusive="own" if self.exclusive else None,
            exact_gain=self.mm == "absolute",
            out_dtype=_at_least_float32(u),
            spatial_dims=u.dim() - 2,
        )
        return cast(Tensor, y)  # without the last states


def _check(tie: str, mode: str, mm: str, scale: int, *, group: bool, exclusive: bool) -> None:
    for option, value, known in (("tie", tie, TIES), ("mode", mode, MODES), ("mm", mm, MILLIMETRES)):
        if value not in known:
            raise UsageError(f"{option} must be one of {', '.join(known)}; got {value!r}", code="bad-mixer-option")
    if not isinstance(scale, int) or scale < 1:
        raise UsageError(f"scale must be a whole number of voxels, got {scale!r}", code="bad-mixer-option")
    if mode == "cascade" and (group or exclusive):
        raise UsageError(
            "a cascade has no groups and cannot leave the voxel itself out: each route needs what those before it saw",
            how=['use mode="parallel", or leave out group and exclusive'],
            code="bad-mixer-option",
        )


def _sets_of_decays(routes: Sequence[str], tie: str) -> tuple[tuple[int, ...], ...]:
    """The places of the routes that share decays, set by set, in the order of the first of each."""
    if tie == "all":
        return (tuple(range(len(routes))),)
    sets: dict[str, list[int]] = {}
    for k, route in enumerate(routes):
        key = min(route, reverse(route)) if tie == "pair" else str(k)
        sets.setdefault(key, []).append(k)
    return tuple(tuple(members) for members in sets.values())


def _steps(routes: Sequence[str], spacing: Sequence[float] | None, mm: str, pool: Sequence[int]) -> tuple[float, ...]:
    """What dt is multiplied with on each route: how far apart its voxels are. 1 on rasters, whose steps differ."""
    if spacing is None or mm == "off":
        return (1.0,) * len(routes)
    edges = [float(edge) * factor for edge, factor in zip(spacing, pool, strict=True)]
    if mm == "axis":
        edges = [min(edge / min(edges), MOST_ANISOTROPIC) for edge in edges]
    names = AXES[len(edges)]
    return tuple(edges[names.index(route[1])] if len(route) == 2 else 1.0 for route in routes)


def _has_one_voxel(route: str, size: Sequence[int]) -> bool:
    """Whether these are lines of one voxel, along which there is nothing to see."""
    return len(route) == 2 and size[AXES[len(size)].index(route[1])] == 1


def _over_rms(x: Tensor) -> Tensor:
    """Over the states, in float32."""
    x = x.to(_at_least_float32(x))
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)

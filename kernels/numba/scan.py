"""Selective scan on the CPU with explicit vectors, through numba.

Routes are done one after the other, each by all threads; a route's outputs go where they belong at once, added to what
the routes before left there. The kernels walk tensors where they are: no direction or axis costs a copy.
"""

import os
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from umamba_seg.kernels.numba import frame as fields
from umamba_seg.kernels.numba import memory, work
from umamba_seg.kernels.numba.frame import LANES
from umamba_seg.kernels.numba.library import kernel
from umamba_seg.kernels.numba.routes import order_numbers
from umamba_seg.kernels.numba.scratch import (
    backward_scratch,
    backward_slot,
    forward_scratch,
    forward_slot,
    pair_scratch,
)
from umamba_seg.kernels.problem import CHECKPOINT_STEP, Scan, slots
from umamba_seg.kernels.routes import Order

MODES = {"": fields.INCLUSIVE, "own": fields.OWN, "shift": fields.SHIFT}
LOG2E = 1.4426950408889634
LEAST_RATE = 1e-20  # stands for A = 0 where A is divided by; its decays are 1


def forward(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last states, and the states that a backward pass starts from."""
    given = _Given(scan, is_backward=False)
    y, last, checkpoints = scan.new_y(), scan.new_last_state(), scan.new_checkpoints()
    target = memory.Target(y, scan.space, given.groups, given.is_row, given.orders)
    pairs = given.pairs()
    for k, order in enumerate(given.orders):
        if k - 1 in pairs:
            continue  # done with the route before
        route = given.route(k)
        states = torch.zeros(scan.batch, order.pieces, scan.states, scan.channels) if scan.keeps_last else None
        route.arrays["y"] = target.told(k)
        route.numbers |= {"last": route.address(states), "checkpoints": given.checkpoints_of(k, checkpoints)}
        if k in pairs:
            route.numbers["partner"] = route.address(torch.tensor(given.route(k + 1, route.held).frame()))
        walk = _walk_both_ways if k in pairs else _walk
        walk(given, route, order)
        if states is not None:
            last[k, :, : order.pieces] = states.transpose(-1, -2)
    return target.finished(), last, checkpoints


def backward(scan: Scan, checkpoints: Tensor, grad_y: Tensor | None, grad_last: Tensor | None) -> dict[str, Tensor]:
    """The gradients of all tensors of the scan, by name."""
    given = _Given(scan, is_backward=True)
    if grad_y is None:
        grad_y = scan.u.new_zeros(()).expand(scan.new_y().shape)
    grad_y = memory.readable(grad_y, scan.space, given.is_row)
    gradients = {name: torch.empty_like(x) for name, x in scan.differentiable().items()}
    targets = {
        f"d{name}": memory.Target(gradients[name], scan.space, given.groups, given.is_row, given.orders)
        for name in ("u", "delta", "z")
        if name in gradients
    }
    coefficients = {name: _CoefficientGradient(given, gradients[name]) for name in ("B", "C")}
    sums = _Sums(given, gradients)
    for k, order in enumerate(given.orders):
        route, plan = given.route(k), _BackwardPlan(given, order)
        states_shape = (scan.batch, order.pieces, scan.states, scan.channels)
        grad_states = None
        if grad_last is not None:
            grad_states = grad_last[k, :, : order.pieces].float().transpose(-1, -2).contiguous()
        grad_initial = torch.zeros(states_shape) if scan.initial_state is not None else None
        route.arrays |= {name: target.told(k) for name, target in targets.items()}
        route.arrays["grad_y"] = memory.told(grad_y, k, given.groups, given.tokens)
        steps = {name: x.begin(k, order, plan) for name, x in coefficients.items()}
        route.arrays |= {f"d{name}": array for name, (array, _, _) in steps.items()}
        route.numbers |= {
            "checkpoints": given.checkpoints_of(k, checkpoints),
            "grad_initial": route.address(grad_initial),
            "grad_last": route.address(grad_states),
        } | sums.begin(plan.runs)
        _walk_back(given, route, order, plan, [(to, by_run) for _, to, by_run in steps.values()])
        for coefficient in coefficients.values():
            coefficient.end(k)
        sums.end(k, scan.batch)
        if grad_initial is not None:
            if k == 0:
                gradients["initial_state"].zero_()
            gradients["initial_state"][k, :, : order.pieces] = grad_initial.transpose(-1, -2)
    for target in targets.values():
        target.finished()
    for coefficient in coefficients.values():
        coefficient.finish()
    sums.finish()
    return gradients


def _walk(given: "_Given", route: "_Route", order: Order) -> None:
    """Do a route, forward: an item of work has whole blocks, or else a team of threads has each of them."""
    threads, exact = work.threads_for(given.scan, order.length), given.scan.exact_gain
    items = _forward_items(given, order, threads)
    members = given.members(order, len(items), given.scan.batch * order.pieces * given.groups * given.blocks, threads)
    if members == 1:
        most = max(((e - d) * (g - f) for _, _, d, e, f, g in items), default=0)
        scratch = forward_scratch(0, given.chunk, given.chunks, most).end
        work.run(kernel("forward", given.chunk, exact), route.frame(), items, scratch, threads)
    else:
        blocks = [(sequence, group, block) for sequence, _, group, _, block, _ in items]
        teams = work.Teams(blocks, members, given.chunks * given.chunk, forward_slot)
        scratch = 2 * forward_scratch(0, given.chunk, given.chunks, 1).end
        member = kernel("forward_team", given.chunk, exact)
        work.run(member, route.frame(), teams.items, scratch, len(teams.items), teams)


def _walk_both_ways(given: "_Given", route: "_Route", order: Order) -> None:
    """Do lines there and back."""
    threads = work.threads_for(given.scan, order.length)
    scratch = pair_scratch(0, given.chunk, given.chunks).end
    work.run(kernel("pair", given.chunk), route.frame(), _forward_items(given, order, threads), scratch, threads)


def _forward_items(given: "_Given", order: Order, threads: int) -> list[tuple[int, ...]]:
    if order.table is None:
        return work.forward_items(given.scan.batch * order.pieces, given.groups, given.blocks, threads)
    # it may name a voxel twice: one thread writes all of a channel
    items = work.forward_items(given.scan.batch, given.groups, given.blocks, threads)
    return [(first * order.pieces, last * order.pieces, *rest) for first, last, *rest in items]


def _walk_back(
    given: "_Given", route: "_Route", order: Order, plan: "_BackwardPlan", to_branches: list[tuple[list[int], int]]
) -> None:
    """Do a route, backward.

    Args:
        given: The inputs.
        route: What the kernel is told.
        order: Of the tokens.
        plan: How it is cut.
        to_branches: Of dB, then of dC, how many bytes each branch and the next run lie behind what the kernel is told.
    """
    threads, exact = work.threads_for(given.scan, order.length), given.scan.exact_gain
    cut = list(product(enumerate(plan.sequences), plan.groups, enumerate(plan.branches)))
    sums = [[to[i] + by_run * run for to, by_run in to_branches] for (run, _), _, (i, _) in cut]
    members = given.members(order, len(cut), given.scan.batch * order.pieces * given.groups * plan.parts, threads)
    if members == 1:
        items = [
            (*sequences, *groups, *parts, run, plan.parts, *to)
            for ((run, sequences), groups, (_, parts)), to in zip(cut, sums, strict=True)
        ]
        most = given.blocks * max((last - first for first, last in plan.groups), default=0)
        scratch = backward_scratch(0, given.chunk, given.chunks, plan.parts, most).end
        work.run(kernel("backward", given.chunk, exact), route.frame(), items, scratch, threads)
    else:
        parts = work.cut(given.blocks, plan.parts)
        most = max(last - first for first, last in parts)
        totals = torch.empty(len(cut), -(-order.length // CHECKPOINT_STEP) * most, 3, LANES)
        blocks = [
            (sequence, group, *parts[part], run, *to, kept.data_ptr())
            for ((run, (sequence, _)), (group, _), (_, (part, _))), to, kept in zip(cut, sums, totals, strict=True)
        ]
        teams = work.Teams(blocks, members, given.chunks * given.chunk, backward_slot)
        scratch = 2 * backward_scratch(0, given.chunk, given.chunks, 1, most).end
        member = kernel("backward_team", given.chunk, exact)
        work.run(member, route.frame(), teams.items, scratch, len(teams.items), teams)


@dataclass(slots=True)
class _Route:
    """What a kernel is told of one route, and what must stay in memory meanwhile."""

    arrays: dict[str, tuple[int, ...]]
    numbers: dict[str, int]
    held: list[Tensor] = field(default_factory=list)

    def address(self, x: Tensor | None) -> int:
        """Where a tensor is, which is held; 0 for none."""
        if x is None:
            return 0
        self.held.append(x)
        return x.data_ptr()

    def frame(self) -> list[int]:
        return fields.packed(self.arrays, self.numbers)


class _Given:
    """The inputs as kernels get them."""

    def __init__(self, scan: Scan, *, is_backward: bool) -> None:
        self.scan, self.orders, self.is_backward = scan, scan.orders(), is_backward
        self.groups = scan.groups
        self.channels = scan.channels // self.groups
        self.blocks = -(-self.channels // LANES)
        self.chunk = work.chunk_of(scan.states, LANES // 2 if is_backward else LANES)
        self.chunks = -(-scan.states // self.chunk)
        self.is_row = len(scan.space) == 1 and all(order.table is None for order in self.orders)
        inputs = {"u": scan.u, "delta": scan.delta, "z": scan.z} | {
            name: _in_groups(x, self.groups) for name, x in (("B", scan.B), ("C", scan.C))
        }
        self.inputs = {name: memory.readable(x, scan.space, self.is_row) for name, x in inputs.items() if x is not None}
        self.tokens = self.inputs["u"].shape[2]

    def pairs(self) -> set[int]:
        """Routes done in one go with the one behind them: lines there and back, alike but for B, C, D and weights."""
        scan = self.scan
        shared = [x for x in (scan.u, scan.delta, scan.A, scan.delta_bias) if x is not None]
        is_plain = not scan.is_stacked and not scan.keeps_last and scan.initial_state is None and self.groups == 1
        if not is_plain or scan.exact_gain or scan.exclusive == "shift" or any(x.shape[0] > 1 for x in shared):
            return set()
        found: set[int] = set()
        for k in range(len(self.orders) - 1):
            if k - 1 not in found and self._are_reverse(k, k + 1) and scan.scale(k) == scan.scale(k + 1):
                found.add(k)
        return found

    def _are_reverse(self, k: int, other: int) -> bool:
        one, two = self.orders[k], self.orders[other]
        if any(order.table is not None or order.offsets is not None for order in (one, two)):
            return False
        is_one_piece = one.run == one.window == two.run == two.window == one.counts[2] <= CHECKPOINT_STEP
        slow = one.counts == two.counts and one.strides[:2] == two.strides[:2]
        return is_one_piece and slow and one.strides[2] == -two.strides[2] and one.counts[2] > 1

    def members(self, order: Order, items: int, blocks: int, threads: int) -> int:
        """How many threads do an item together, once each item is one of all the blocks of sequences."""
        cannot_wait = not hasattr(os, "sched_yield")
        if items < blocks or order.table is not None or self.scan.exclusive == "shift" or cannot_wait:
            return 1
        return work.members_for(items, self.chunks * self.chunk, threads)

    def route(self, k: int, held: list[Tensor] | None = None) -> _Route:
        """The inputs of one route; what must stay in memory is added to `held`."""
        scan, order = self.scan, self.orders[k]
        arrays = {name: memory.told(x, k, self.groups, self.tokens) for name, x in self.inputs.items()}
        route = _Route(arrays, {}, [] if held is None else held)
        A = scan.A[k if scan.A.shape[0] > 1 else 0].float()
        if scan.exact_gain:
            A = torch.where(A.abs() < LEAST_RATE, LEAST_RATE, A)
        rates = route.address(self._states(A * LOG2E))
        scale = scan.scale(k)
        weights = torch.ones(1, scan.channels) if scan.weights is None else scan.weights[k].float()
        weights = self._channels((weights * scan.y_scale).expand(-1, scan.channels))
        pieces = order.pieces
        route.numbers |= order_numbers(order, route.held, is_backward=self.is_backward) | {
            "groups": self.groups, "channels": self.channels, "blocks": self.blocks,
            "states": scan.states, "chunks": self.chunks,
            "softplus": scan.delta_softplus, "mode": MODES[scan.exclusive],
            "is_scaled": scale != 1, "is_weighted": scan.weights is not None or scan.y_scale != 1,
            "slots": slots(order),
            "dt_scale": route.address(torch.full((LANES,), scale)),
            "dt_unscale": route.address(torch.full((LANES,), -LOG2E / scale)),
            "rates": rates,
            "inverse_rates": route.address(self._states(1 / A)) if scan.exact_gain else rates,  # else nobody uses them
            "bias": route.address(self._row(scan.delta_bias, k)),
            "skip": route.address(self._row(scan.D, k)),
            "weight": route.address(weights),
            "weight_batch": 4 * weights[0].numel() if len(weights) > 1 else 0,
            "initial": route.address(self._initial(k, pieces)),
        }  # fmt: skip
        return route

    def checkpoints_of(self, k: int, checkpoints: Tensor) -> int:
        """Where the checkpoints of a route lie; 0 where it has none."""
        if not checkpoints.numel() or not slots(self.orders[k]):
            return 0
        before = sum(slots(order) for order in self.orders[:k])
        return checkpoints.data_ptr() + 4 * before * self.scan.batch * self.scan.channels * self.scan.states

    def _states(self, x: Tensor) -> Tensor:
        return memory.state_rows(x, self.groups, self.chunks * self.chunk)

    def _channels(self, x: Tensor) -> Tensor:
        return memory.channel_rows(x, self.groups)

    def _row(self, x: Tensor | None, k: int) -> Tensor:
        return self._channels(torch.zeros(self.scan.channels) if x is None else x[k if x.shape[0] > 1 else 0])

    def _initial(self, k: int, pieces: int) -> Tensor | None:
        if self.scan.initial_state is None:
            return None
        return self.scan.initial_state[k, :, :pieces].float().transpose(-1, -2).contiguous()


class _BackwardPlan:
    """How the backward pass of a route is cut: runs and parts by shapes, only groups and branches by threads."""

    def __init__(self, given: _Given, order: Order) -> None:
        scan = given.scan
        # a table may name a voxel twice: one thread has all of a batch item
        self.sequences = work.runs_of(order.pieces, scan.batch, is_whole=order.table is not None)
        self.runs = len(self.sequences)
        self.parts = work.parts_for(self.runs, given.groups, given.blocks)
        threads = work.threads_for(scan, order.length)
        branches = work.branches_for(self.runs, self.parts, threads)
        if order.table is not None:  # a voxel named twice is added to, and each part's tokens must be before parts are
            branches = self.parts
        self.branches = work.cut(self.parts, branches)
        self.groups = work.cut(given.groups, min(given.groups, -(-threads // max(self.runs, 1))))


class _CoefficientGradient:
    """The gradient of B or C in the making: each branch of parts has its own, and each run where tokens share it."""

    def __init__(self, given: _Given, result: Tensor) -> None:
        self.given, self.result = given, result
        self.voxels = memory.with_voxels(result, given.scan.space)  # (k, b, v, g, n)
        self.is_constant = tuple(self.voxels.shape[1:3]) != (given.scan.batch, given.tokens)
        self.branches: list[Tensor] = []
        self.total: Tensor | None = None

    def begin(self, k: int, order: Order, plan: _BackwardPlan) -> tuple[tuple[int, ...], list[int], int]:
        """Memory for one route, as a frame has it; how many bytes each branch and the next run lie behind it."""
        runs = max(plan.runs, 1) if self.is_constant else 1
        make = torch.zeros if self.is_constant or order.table is not None else torch.empty
        if self._is_written_to():
            first = self.voxels[k].unsqueeze(0)  # (runs, b, v, g, n)
            self.branches = [first, *(torch.empty_like(first) for _ in plan.branches[1:])]
            for branch in self.branches if order.table is not None else ():
                branch.zero_()
        else:
            shape = (runs, *self.voxels.shape[1:3], self.given.groups, self.voxels.shape[-1])
            self.branches = [make(shape) for _ in plan.branches]
        one = self.branches[0][:1]
        tokens = 2 if self.is_constant else self.given.tokens
        array = memory.told(one, 0, one.shape[3], tokens, order.table is not None)
        to_branches = [x.data_ptr() - one.data_ptr() for x in self.branches]
        return array, to_branches, 4 * one.numel() if self.is_constant else 0

    def end(self, k: int) -> None:
        """Add up what a route left."""
        total = memory.added_in_branches(self.branches)
        self.branches = []
        if self._is_written_to():
            return
        total, groups = memory.added(total), self.result.shape[-2]
        if groups < self.given.groups:
            total = memory.added(total.unflatten(-2, (groups, -1)).movedim(-2, 0))
        if self.result.shape[0] > 1:
            self.result[k] = total.view(self.result.shape[1:])
        else:
            self.total = total if self.total is None else self.total.add_(total)

    def finish(self) -> None:
        """Give the result its values."""
        if self.total is not None:
            self.result[0] = self.total.view(self.result.shape[1:])

    def _is_written_to(self) -> bool:
        """Whether the first branch of a route can write where the result is."""
        is_its_own = self.result.shape[0] == len(self.given.orders)
        is_alike = self.result.shape[-2] == self.given.groups and self.result.dtype == torch.float32
        is_there = self.voxels.data_ptr() == self.result.data_ptr()
        return (
            is_its_own
            and is_alike
            and is_there
            and not self.is_constant
            and memory.is_readable(self.voxels, self.given.is_row)
        )


class _Sums:
    """The gradients of A, D, delta_bias and weights in the making: sums over the tokens of each run."""

    def __init__(self, given: _Given, gradients: dict[str, Tensor]) -> None:
        self.given = given
        names = ["A", "D", "delta_bias", "weights"]
        self.results = {name: gradients[name] for name in names if name in gradients}
        self.totals: dict[str, Tensor] = {}
        self.of_route: dict[str, Tensor] = {}

    def begin(self, runs: int) -> dict[str, int]:
        """Memory for one route, as a frame has it."""
        rows = (runs, self.given.groups, self.given.blocks)
        names = {"A": "grad_rates", "D": "grad_skip", "delta_bias": "grad_bias", "weights": "grad_weight"}
        wanted = [name for name in names if name != "weights" or name in self.results]
        depth = self.given.chunk * self.given.chunks
        self.of_route = {name: torch.zeros(*rows, *([depth] if name == "A" else []), LANES) for name in wanted}
        return {names[name]: x.data_ptr() for name, x in self.of_route.items()}

    def end(self, k: int, batch: int) -> None:
        """Add up what the runs of a route left."""
        channels, states = self.given.channels, self.given.scan.states
        for name, result in self.results.items():
            rows = self.of_route[name]
            if not len(rows):
                total = torch.zeros(result.shape[1:])
            elif name == "weights":
                total = memory.added(rows.unflatten(0, (batch, -1)).movedim(1, 0)) * self.given.scan.y_scale
                total = memory.from_channel_rows(total, channels)  # (b, d)
                total = total if result.shape[1] > 1 else memory.added(total)[None]
                total = total if result.shape[2] > 1 else total.sum(1, keepdim=True)
            elif name == "A":
                total = memory.from_state_rows(memory.added(rows), channels, states)
            else:
                total = memory.from_channel_rows(memory.added(rows), channels)
            if result.shape[0] > 1:
                result[k] = total
            else:
                self.totals[name] = self.totals[name] + total if name in self.totals else total

    def finish(self) -> None:
        """Give the results that all routes share their values."""
        for name, total in self.totals.items():
            self.results[name][0] = total


def _in_groups(x: Tensor, groups: int) -> Tensor:
    """B or C with one row for each of so many groups, or one for all."""
    return x if x.shape[-2] in (1, groups) else x.repeat_interleave(groups // x.shape[-2], dim=-2)

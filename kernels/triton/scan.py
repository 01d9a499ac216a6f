"""Selective scan in Triton. What runs where: `forward` and `backward` have the kernels, `parts` how work is cut.

All sums have one order, so the same call gives the same bits. Routes that add to the same memory are launched one after
the other, and so are slices of the states, of which registers hold only so many; other routes share a launch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from umamba_seg.kernels.problem import CHECKPOINT_STEP, Scan
from umamba_seg.kernels.triton.backward import chunk_adjoints, scan_backward
from umamba_seg.kernels.triton.device import Array
from umamba_seg.kernels.triton.forward import carry, chunk_ends, scan_forward
from umamba_seg.kernels.triton.parts import LANES, Part, Volumes, array, parts, put_back, reach, with_all_axes, writable

FORWARD_STATES = 16  # of a launch: what registers hold
BACKWARD_STATES = 16
EXACT_BACKWARD_STATES = 8
SPAN = 2  # tokens whose states the backward pass keeps in registers; with 4 it spills, and compiles four times as long
BACKWARD_PROGRAMS = 1024  # as many as an H100 runs at once; each has memory of its own, 70 kB with 16 states
COMPILED = {"num_warps": 1, "enable_fp_fusion": True}
# Left alone, ptxas takes up to 230 registers to issue all loads of a token at once, and halves how many warps run.
FORWARD = COMPILED | ({} if torch.version.hip else {"maxnreg": 128})


def forward(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last states and the checkpoints."""
    volumes = Volumes(scan)
    y, last, checkpoints = scan.new_y(), scan.new_last_state(), scan.new_checkpoints()
    sets = 2 if scan.channels // volumes.groups["both"] > LANES else 1
    launches = list(parts(volumes, is_joint=scan.is_stacked, most_states=FORWARD_STATES, sets=sets))
    sums = Sums(volumes, {"y": y}, launches)
    with torch.cuda.device_of(scan.u):
        for part in launches:
            if all(part.grid):
                _launch_forward(part, sums, last if scan.keeps_last else None, checkpoints, is_far=sums.is_far())
    sums.finish()
    return y, last, checkpoints


def backward(scan: Scan, checkpoints: Tensor, grad_y: Tensor | None, grad_last: Tensor | None) -> dict[str, Tensor]:
    """The gradients of all tensors of the scan, by name."""
    volumes = Volumes(scan)
    if grad_y is None:
        grad_y = scan.u.new_zeros(()).expand(scan.number_of_routes if scan.is_stacked else 1, *scan.u.shape[1:])
    grads = {name: torch.empty_like(x) for name, x in scan.differentiable().items()}
    in_place = {str(name): grads[name] for name in ("u", "delta", "z") if name in grads}
    is_joint = all(x.shape[0] == scan.number_of_routes for x in in_place.values())
    states = EXACT_BACKWARD_STATES if scan.exact_gain else BACKWARD_STATES
    launches = list(parts(volumes, is_joint=is_joint, most_states=states, sets=1, most_programs=BACKWARD_PROGRAMS))
    sums, totals = Sums(volumes, in_place, launches), Totals(volumes)
    with torch.cuda.device_of(scan.u):
        for part in launches:
            if all(part.grid):
                given = Adjoint(checkpoints, with_all_axes("u", grad_y), grad_last, totals.tensors.get("initial_state"))
                shares = _launch_backward(part, given, sums)
                totals.add(shares)
    sums.finish()
    for name, total in totals.tensors.items():
        grads[name].copy_(total.view(grads[name].shape))
    return grads


@dataclass(frozen=True, slots=True)
class Adjoint:
    """What a backward pass is given beside the scan, and where the gradient of the initial states belongs."""

    checkpoints: Tensor
    grad_y: Tensor
    grad_last: Tensor | None
    grad_initial: Tensor | None


class Sums:
    """Tensors (k, b, *space, d) that launches write, or add to: in float32, then put where they belong."""

    def __init__(self, volumes: Volumes, tensors: dict[str, Tensor], launches: list[Part]) -> None:
        self.volumes, self.tensors, self.is_filled = volumes, tensors, volumes.has_tables
        self.rows: dict[str, Tensor] = {}
        self.written: set[tuple[str, int]] = set()
        slices = len({part.states for part in launches})
        for name, x in tensors.items():
            is_sum = volumes.has_repeats or (len(launches) if x.shape[0] == 1 else slices) > 1
            rows = writable(x, is_sum=is_sum)
            self.rows[name] = rows.zero_() if self.is_filled else rows

    def array(self, name: str, part: Part) -> Any:
        """Where a launch writes; None for a tensor that there is not."""
        return part.of(self.rows[name]) if name in self.rows else None

    def is_far(self, *others: Tensor) -> bool:
        """Whether something of a batch item, of these, those and the scan's own, lies further than 32 bits tell."""
        return any(reach(x) >= 2**31 for x in (*self.rows.values(), *self.volumes.tensors.values(), *others))

    def adds(self, name: str, part: Part) -> bool:
        """Whether a launch adds to what others have left; to be asked once by each, in their order."""
        if name not in self.tensors:
            return False
        places = {(name, k if self.tensors[name].shape[0] > 1 else 0) for k in part.routes}
        is_written = places <= self.written
        self.written |= places
        return self.is_filled or is_written

    def finish(self) -> None:
        """Put the sums where they belong."""
        for name, x in self.tensors.items():
            put_back(self.rows[name], x)


def _launch_forward(part: Part, sums: Sums, last: Tensor | None, checkpoints: Tensor, *, is_far: bool) -> None:
    scan, given = part.volumes.scan, part.given
    starts = _chunk_starts(part, is_far=is_far) if part.chunks > 1 else None
    scan_forward[part.grid](
        given("u"), given("delta"), given("A"), given("B"), given("C"), given("D") if part.has_first_state else None,
        given("z"), given("delta_bias"), given("weights"), given("initial_state"), starts,
        sums.array("y", part), None if last is None else part.of(last), _own_checkpoints(part, checkpoints), part.path,
        scan.channels, part.groups("both"), part.groups("B"), part.groups("C"), scan.states,
        part.workers, part.chunks, part.chunk_tokens, scan.y_scale,
        N=part.size, BD=LANES, W=part.sets, SOFTPLUS=scan.delta_softplus, EXACT=scan.exact_gain,
        EXCLUSIVE=scan.exclusive, B_CONSTANT=part.is_constant("B"), C_CONSTANT=part.is_constant("C"),
        ADDS=sums.adds("y", part), FAR=is_far, **FORWARD,
    )  # fmt: skip


def _chunk_starts(part: Part, *, is_far: bool) -> Array:
    """The states before the chunks."""
    scan, given = part.volumes.scan, part.given
    ends, totals = part.for_chunks(part.size), part.for_chunks(1)
    chunk_ends[part.grid](
        given("u"), given("delta"), given("A"), given("B"), given("delta_bias"), ends, totals, part.path,
        scan.channels, part.groups("both"), part.groups("B"), part.workers, part.chunks, part.chunk_tokens,
        N=part.size, BD=LANES, W=part.sets, SOFTPLUS=scan.delta_softplus, EXACT=scan.exact_gain,
        B_CONSTANT=part.is_constant("B"), FAR=is_far, **FORWARD,
    )  # fmt: skip
    _carry(part, given("initial_state"), ends, totals, first=0, step=1)
    return ends


def _carry(part: Part, boundary: Array | None, ends: Array, totals: Array, *, first: int, step: int) -> None:
    scan = part.volumes.scan
    grid = scan.batch * part.pieces, -(-scan.channels // LANES), len(part.routes)
    carry[grid](
        part.given("A"), boundary, ends, totals, part.path, scan.channels, part.pieces, part.chunks, first, step,
        N=part.size, BD=LANES, **FORWARD,
    )  # fmt: skip


def _own_checkpoints(part: Part, checkpoints: Tensor) -> Tensor | None:
    """The checkpoints from the first route and state of a part on; None if there are none."""
    return checkpoints[part.states[0] * part.volumes.dim :] if part.volumes.has_checkpoints else None


def _launch_backward(part: Part, adjoint: Adjoint, sums: Sums) -> "Shares":
    scan, given, shares = part.volumes.scan, part.given, Shares(part)
    boundary = None if adjoint.grad_last is None else part.of(adjoint.grad_last)
    is_far = sums.is_far(adjoint.grad_y)
    aside = prod(part.grid) * (CHECKPOINT_STEP // SPAN) * (part.size + 1) * LANES
    scan_backward[part.grid](
        given("u"), given("delta"), given("A"), given("B"), given("C"), given("D") if part.has_first_state else None,
        given("z"), given("delta_bias"), given("weights"), given("initial_state"),
        _chunk_adjoints(part, adjoint.grad_y, boundary, is_far=is_far) if part.chunks > 1 else boundary,
        part.of(adjoint.grad_y), _own_checkpoints(part, adjoint.checkpoints),
        sums.array("u", part), sums.array("delta", part), sums.array("z", part),
        None if adjoint.grad_initial is None else part.of(adjoint.grad_initial),
        *(shares.array(name) for name in ("A", "B", "C", "D", "delta_bias", "weights")), shares.of_voxels,
        scan.u.new_empty(aside, dtype=torch.float32), part.path,
        scan.channels, part.groups("both"), part.groups("B"), part.groups("C"), scan.states, scan.batch,
        part.volumes.voxels, part.workers, part.chunks, part.chunk_tokens, scan.y_scale,
        N=part.size, BD=LANES, T=SPAN, SLOTS=shares.slots, LEVELS=shares.levels,
        SOFTPLUS=scan.delta_softplus, EXACT=scan.exact_gain, EXCLUSIVE=scan.exclusive,
        B_CONSTANT=part.is_constant("B"), C_CONSTANT=part.is_constant("C"),
        U_ADDS=sums.adds("u", part), DELTA_ADDS=sums.adds("delta", part), Z_ADDS=sums.adds("z", part),
        SHARES_ADD=part.volumes.has_repeats, FAR=is_far, **COMPILED,
    )  # fmt: skip
    return shares


def _chunk_adjoints(part: Part, grad_y: Tensor, boundary: Array | None, *, is_far: bool) -> Array:
    """What enters the chunks from behind."""
    scan, given = part.volumes.scan, part.given
    ends, totals = part.for_chunks(part.size), part.for_chunks(1)
    chunk_adjoints[part.grid](
        given("delta"), given("A"), given("C"), given("z"), given("delta_bias"), given("weights"), part.of(grad_y),
        ends, totals, part.path,
        scan.channels, part.groups("both"), part.groups("C"), part.workers, part.chunks, part.chunk_tokens,
        scan.y_scale,
        N=part.size, BD=LANES, SOFTPLUS=scan.delta_softplus, C_CONSTANT=part.is_constant("C"), FAR=is_far,
        **FORWARD,
    )  # fmt: skip
    _carry(part, boundary, ends, totals, first=part.chunks - 1, step=-1)
    return ends


class Shares:
    """What the programs of one launch give to the gradients of what they share: memory, and then the sums."""

    def __init__(self, part: Part) -> None:
        self.part, volumes = part, part.volumes
        rows = {"A": part.size, "B": part.size, "C": part.size, "D": 1, "delta_bias": 1, "weights": 1}
        self.varying = [name for name in ("B", "C") if not part.is_constant(name)]
        left_out = [*self.varying, *(() if part.has_first_state else ("D",))]
        kept = {name: count for name, count in rows.items() if name in volumes.tensors and name not in left_out}
        new = volumes.scan.u.new_empty
        shapes = {name: (len(part.routes), 1, part.programs, count, volumes.dim) for name, count in kept.items()}
        self.of_programs = {name: new(shape, dtype=torch.float32).mT for name, shape in shapes.items()}
        self.slots = 1 << (part.size - 1).bit_length()
        self.levels = (self.slots * len(self.varying)).bit_length() - 1
        self.of_voxels = None
        if self.varying:
            shape = (len(part.routes), part.blocks, volumes.batch, volumes.voxels, 1 << self.levels)
            self.of_voxels = (torch.zeros if volumes.has_tables else torch.empty)(
                shape, dtype=torch.float32, device=volumes.scan.u.device
            )

    def array(self, name: str) -> Array | None:
        """Where the programs put what they have summed up; None where nothing is wanted."""
        return array(self.of_programs[name]) if name in self.of_programs else None

    def summed(self) -> Iterator[tuple[str, Tensor]]:
        """The sums over programs by name: (k, b or 1, v or 1, d or g, n)."""
        for name, x in self.of_programs.items():
            if name == "weights":
                workers = x.reshape(len(x), self.part.volumes.batch, self.part.workers, *x.shape[3:])
                yield name, workers.sum(2, keepdim=True)
            elif name in ("B", "C"):
                total = x.sum(2, keepdim=True)
                yield name, total.reshape(*total.shape[:3], self.part.groups(name), -1, self.part.size).sum(4)
            else:
                yield name, x.sum(2, keepdim=True)
        for i, name in enumerate(self.varying):
            if self.of_voxels is not None:
                own = self.of_voxels[..., i * self.slots : i * self.slots + self.part.size]
                groups = self.part.groups(name)
                own = own.view(len(own), groups, own.shape[1] // groups, *own.shape[2:]).sum(2)
                yield name, own.permute(0, 2, 3, 1, 4)


class Totals:
    """The gradients of what voxels or routes share, and of the initial states; (k, b, v, d, n), in float32."""

    def __init__(self, volumes: Volumes) -> None:
        shared = {name: x for name, x in volumes.tensors.items() if name not in ("u", "delta", "z")}
        self.tensors = {name: x.new_zeros(x.shape, dtype=torch.float32) for name, x in shared.items()}

    def add(self, shares: Shares) -> None:
        """Add what one launch gives."""
        for name, share in shares.summed():
            own = shares.part.own(self.tensors[name])
            own += share.sum_to_size(own.shape)

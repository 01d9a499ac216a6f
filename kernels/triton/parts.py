"""What the launches of a scan take: some of its routes and states each, as arrays that kernels read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate, groupby
from math import lcm, prod

import torch
from torch import Tensor

from umamba_seg.errors import BackendUnavailableError
from umamba_seg.kernels.problem import Scan, has_repeats, slots
from umamba_seg.kernels.routes import Order
from umamba_seg.kernels.triton.device import Array, Path

LANES = 32
MOST_VOXELS = 2**29  # kernels count in 32 bits, and a chunk may end far behind its piece
THREADS = 65536  # a machine is full with so many
CHUNKS = (256, 128, 64)  # tokens of a chunk where pieces alone do not fill it; multiples of problem.CHECKPOINT_STEP
LONGEST_ALONE = 256  # a piece of no more tokens is not worth three launches


class Volumes:
    """The tensors of a scan with the axes of `device.Array`, and what else does not differ between launches."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.dim, self.batch, self.voxels = scan.channels, scan.batch, prod(scan.space)
        self.orders = scan.orders()
        check_count(max(self.voxels, *(order.length for order in self.orders)))
        self.tensors = {name: with_all_axes(name, x) for name, x in scan.differentiable().items()}
        self.is_constant = {name: self.tensors[name].shape[1:3].numel() == 1 for name in ("B", "C")}
        self.groups = {name: self.tensors[name].shape[3] for name in ("B", "C")}
        self.groups["both"] = lcm(*(self.groups[name] for name in ("B", "C") if not self.is_constant[name]))

    @cached_property
    def has_checkpoints(self) -> bool:
        """Whether the forward pass keeps states for the backward pass."""
        return self.scan.is_differentiated and any(slots(order) for order in self.orders)

    @cached_property
    def has_tables(self) -> bool:
        """Whether some voxels may be on no route."""
        return any(order.table is not None for order in self.orders)

    @cached_property
    def has_repeats(self) -> bool:
        """Whether a route may come to a voxel twice: then a batch item is one program's, and all it writes adds up."""
        tables = [] if self.scan.is_stacked else [order.table for order in self.orders if order.table is not None]
        return any(has_repeats(table) for table in tables)

    @cached_property
    def _numbers(self) -> tuple[tuple[int, ...], ...]:  # the fields of `device`, in order
        scan = self.scan
        sizes = [self.batch * slots(order) * self.dim * scan.states for order in self.orders]
        begins = accumulate(sizes[:-1], initial=0)
        rows: dict[str, int] = {"table": 0, "offsets": 0}
        found = []
        for order, begin in zip(self.orders, begins, strict=True):
            where = order.counts[2], order.counts[1], *order.strides[::-1], order.start
            cut = order.run, order.window, order.pieces_of_a_run if order.run else 1, order.pieces
            found.append((*where, *cut, begin, slots(order), rows["table"], rows["offsets"]))
            rows["table"] += order.table is not None
            rows["offsets"] += order.offsets is not None
        return tuple(found)

    def path(self, routes: range) -> Path:
        """The routes of a launch, which are of one kind."""
        scan, first = self.scan, self.orders[routes[0]]
        numbers = _on_device(tuple(self._numbers[k] for k in routes), torch.int64, scan.u.device)
        scale = _on_device(tuple(scan.scale(k) for k in routes), torch.float32, scan.u.device)
        table = scan.table.contiguous() if first.table is not None and scan.table is not None else None
        offsets = scan.offsets.contiguous() if first.offsets is not None and scan.offsets is not None else None
        rows, items = (0, 0) if table is None else (table.stride(0), table.stride(1) if table.shape[1] > 1 else 0)
        return Path(numbers, scale, table, rows, items, offsets, 0 if offsets is None else offsets.shape[1])


@dataclass(frozen=True, slots=True)
class Part:
    """One launch: what of a scan it takes, and how its work is cut.

    Args:
        states: From which state to which.
        sets: How many sets of channels a program has.
        pieces: The most that one of the routes has,
        chunks: in how many each is cut,
        chunk_tokens: and how many tokens those have.
        workers: How many programs share the chunks of a batch item.
    """

    volumes: Volumes
    routes: range
    states: tuple[int, int]
    sets: int
    pieces: int
    chunks: int
    chunk_tokens: int
    workers: int

    @property
    def size(self) -> int:
        """How many states it takes."""
        return self.states[1] - self.states[0]

    @property
    def has_first_state(self) -> bool:
        """Whether this launch takes care of what has no states, like D u."""
        return self.states[0] == 0

    @property
    def path(self) -> Path:
        """The routes of this part."""
        return self.volumes.path(self.routes)

    @property
    def programs(self) -> int:
        """How many programs there are for each route and block of channels."""
        return self.volumes.batch * self.workers

    @property
    def blocks(self) -> int:
        """How many programs share the channels."""
        groups = self.groups("both")
        return groups * -(-self.volumes.dim // groups // (self.sets * LANES))

    @property
    def grid(self) -> tuple[int, int, int]:
        """The programs of the launch."""
        return self.programs, self.blocks, len(self.routes)

    def groups(self, name: str) -> int:
        """How many groups of channels differ in B, in C, or in what "both" have for each voxel."""
        return self.volumes.groups[name]

    def is_constant(self, name: str) -> bool:
        """Whether B or C is the same for all voxels."""
        return self.volumes.is_constant[name]

    def given(self, name: str) -> Array | None:
        """The part of a tensor of the scan; None where it was not given."""
        x = self.volumes.tensors.get(name)
        return None if x is None else self.of(x)

    def of(self, x: Tensor) -> Array:
        """The part of a tensor that has all axes, as kernels get it."""
        return array(self.own(x))

    def own(self, x: Tensor) -> Tensor:
        """The part of a tensor that has all axes: its routes and states, unless those are shared."""
        x = x[self.routes[0] : self.routes[-1] + 1] if x.shape[0] > 1 else x
        return x[..., slice(*self.states)] if x.shape[4] > 1 else x

    def for_chunks(self, rows: int) -> Array:
        """Memory for some numbers of each chunk and channel, (k, b, pieces * chunks, d, rows); channels are close."""
        volumes = self.volumes
        shape = (len(self.routes), volumes.batch, self.pieces * self.chunks, rows, volumes.dim)
        return array(volumes.scan.u.new_empty(shape, dtype=torch.float32).mT)


def parts(
    volumes: Volumes, *, is_joint: bool, most_states: int, sets: int, most_programs: int | None = None
) -> Iterator[Part]:
    """The launches of a scan, in the order in which they may add to the same memory.

    Args:
        is_joint: Whether routes may run side by side.
        most_states: How many states the registers hold.
        sets: How many sets of 32 channels a program has.
        most_programs: How many programs there may be, with several chunks each if need be; None for one chunk each.
    """
    slices = -(-volumes.scan.states // most_states)
    for _, run in groupby(range(len(volumes.orders)), key=lambda k: _kind(volumes.orders[k]) if is_joint else k):
        routes = list(run)
        for i in range(slices):
            states = volumes.scan.states * i // slices, volumes.scan.states * (i + 1) // slices
            yield _cut(volumes, range(routes[0], routes[-1] + 1), states, sets, most_programs)


def _kind(order: Order) -> tuple[bool, bool]:
    return order.table is not None, order.offsets is not None


def _cut(volumes: Volumes, routes: range, states: tuple[int, int], sets: int, most_programs: int | None) -> Part:
    orders = [volumes.orders[k] for k in routes]
    pieces = max(order.pieces for order in orders)
    longest = max(order.length if order.offsets is not None else min(order.window, order.run) for order in orders)
    whole = Part(volumes, routes, states, sets, pieces, chunks=1, chunk_tokens=max(longest, 1), workers=pieces)
    if volumes.has_repeats:
        return replace(whole, workers=min(pieces, 1))
    tokens = chunk_tokens(prod(whole.grid), longest)
    # With "shift", the first token of a chunk would need what the one before has read.
    if tokens < longest and volumes.scan.exclusive != "shift":
        chunks = -(-longest // tokens)
        whole = replace(whole, chunks=chunks, chunk_tokens=tokens, workers=pieces * chunks)
    if most_programs is None:
        return whole
    others = max(1, volumes.batch * whole.blocks * len(routes))
    return replace(whole, workers=min(whole.workers, max(1, most_programs // others)))


def chunk_tokens(programs: int, longest: int) -> int:
    """How many tokens a program takes: all of a piece, unless pieces are long and few."""
    if longest <= LONGEST_ALONE or programs * LANES >= THREADS:
        return longest
    full = (tokens for tokens in CHUNKS if programs * -(-longest // tokens) * LANES >= THREADS)
    return next(full, CHUNKS[-1])


def check_count(most: int) -> None:
    """Refuse more voxels or tokens than the kernels can count."""
    if most > MOST_VOXELS:
        raise BackendUnavailableError(
            f"backend 'triton' counts at most 2**29 voxels, got {most}",
            how=['backend="torch" has no such limit'],
            code="backend-unavailable",
        )


def with_all_axes(name: str, x: Tensor) -> Tensor:
    """A tensor of a scan as (k, b, v, d, n), v for voxels or pieces; copied only where voxels are unevenly spaced."""
    if name in ("B", "C"):
        return x.flatten(2, -3)
    if name == "A":
        return x[:, None, None]
    if name in ("D", "delta_bias"):
        return x[:, None, None, :, None]
    if name == "weights":
        return x[:, :, None, :, None]
    return x if name == "initial_state" else x.flatten(2, -2)[..., None]


def writable(x: Tensor, *, is_sum: bool) -> Tensor:
    """Where kernels write a tensor (k, b, *space, d), with all axes: into it if they can, else into float32.

    Args:
        is_sum: Whether several launches add to it, which 16 bits are too few for.
    """
    rows = with_all_axes("u", x)
    is_interpreted = x.device.type == "cpu"  # there, kernels cut off bits of bfloat16 where they should round
    if rows.data_ptr() != x.data_ptr() or (x.dtype != torch.float32 and (is_sum or is_interpreted)):
        return torch.empty_like(rows, dtype=torch.float32)
    return rows


def put_back(rows: Tensor, x: Tensor) -> None:
    """Bring what was written beside a tensor to where it belongs."""
    if rows.data_ptr() != x.data_ptr():
        x.copy_(rows.view(x.shape))


def reach(x: Tensor) -> int:
    """How far the last element of a batch item lies from its first; of a tensor (k, b, v, d, n)."""
    return sum((size - 1) * stride for size, stride in list(zip(x.shape, x.stride(), strict=True))[2:] if size)


def array(x: Tensor) -> Array:
    """A tensor (k, b, v, d, n) as kernels get it."""
    return Array(x, *(0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True)))


@lru_cache(maxsize=256)
def _on_device(values: tuple[object, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Few numbers in the memory of a device; kept, since a copy to a GPU cannot be part of a CUDA graph."""
    return torch.tensor(values, dtype=dtype, device=device)

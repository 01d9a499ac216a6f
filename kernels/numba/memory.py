"""How tensors lie in memory, as kernels are told; and the tensors that kernels want laid out their way."""

import torch
from torch import Tensor
from torch.nn import functional as F

from umamba_seg.kernels.numba.frame import BFLOAT16, FLOAT16, FLOAT32, LANES
from umamba_seg.kernels.routes import Order

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


def with_voxels(x: Tensor, space: tuple[int, ...]) -> Tensor:
    """Make the axes of space, which are (*space) or all 1, behind route and batch, one."""
    return x.flatten(2, 1 + len(space)) if len(space) > 1 else x


def is_readable(x: Tensor, is_row: bool) -> bool:
    """Whether kernels can walk a tensor (k, b, v, *, c) where it is.

    Args:
        is_row: Whether tokens are voxels one after the other, in either direction; then channels may lie far apart.
    """
    if x.shape[-1] == 1 or x.stride(-1) == 1:
        return True
    return is_row and x.dtype == torch.float32 and x.stride(2) == 1


def readable(x: Tensor, space: tuple[int, ...], is_row: bool) -> Tensor:
    """The tensor with one axis of voxels, copied only where kernels cannot walk it."""
    x = with_voxels(x, space)
    return x if is_readable(x, is_row) else x.contiguous()


def told(x: Tensor, route: int, groups: int, tokens: int, adds: bool = False) -> tuple[int, ...]:
    """The `frame.ARRAY_FIELDS` of one route of a tensor (k, b, v, c) or (k, b, v, g, c) over `tokens` voxels."""
    size, (routes, *extents), (by_route, *strides) = x.element_size(), x.shape, x.stride()
    if len(extents) == 3:  # groups lie side by side in the channels
        width = extents[2] // groups
        extents[2:], strides[2:] = [groups, width], [width * strides[2], strides[2]]
    # an axis of extent 1 may have any stride; where it stands for many that are the same, none is to be taken
    batch, token, group, inner = (
        size * stride if extent > 1 else 0 for extent, stride in zip(extents, strides, strict=True)
    )
    address = x.data_ptr() + (size * route * by_route if routes > 1 else 0)
    return address, batch, group, token or size * (tokens < 2), inner or size, KINDS[x.dtype], adds


class Target:
    """A result that kernels write, or memory that stands in for it where they cannot.

    Args:
        result: (k, b, *space, c); with 1 for k it has the sum over all routes.
    """

    def __init__(self, result: Tensor, space: tuple[int, ...], groups: int, is_row: bool, orders: list[Order]) -> None:
        self.result, self.groups, self.orders = result, groups, orders
        memory = with_voxels(result, space)
        is_added_to = result.shape[0] < len(orders) or any(order.table is not None for order in orders)
        dtype = torch.float32 if is_added_to else result.dtype
        # kernels that write channels far apart cannot add to what is there
        is_readable_there = is_readable(memory, is_row and not is_added_to)
        is_usable = memory.data_ptr() == result.data_ptr() and is_readable_there and dtype == result.dtype
        self.memory = memory if is_usable else torch.empty(memory.shape, dtype=dtype)

    def told(self, route: int) -> tuple[int, ...]:
        """The fields of one route, whose memory is zeroed before where not every token is going to be written."""
        is_first = self.memory.shape[0] == len(self.orders) or route == 0
        has_table = self.orders[route].table is not None
        if is_first and has_table:
            self.memory[route if self.memory.shape[0] > 1 else 0].zero_()
        return told(self.memory, route, self.groups, self.memory.shape[2], has_table or not is_first)

    def finished(self) -> Tensor:
        """The result, when all routes are done."""
        if self.memory.data_ptr() != self.result.data_ptr():
            self.result.copy_(self.memory.view(self.result.shape))
        return self.result


def channel_rows(x: Tensor, groups: int) -> Tensor:
    """(*, d) -> (*, groups, blocks, LANES) in float32, filled up with 0."""
    *others, channels = x.shape
    x, width = x.float().reshape(*others, groups, channels // groups), channels // groups
    if missing := -width % LANES:
        x = F.pad(x, (0, missing))
    return x.reshape(*others, groups, (width + missing) // LANES, LANES).contiguous()


def state_rows(x: Tensor, groups: int, states: int) -> Tensor:
    """(d, n) -> (groups, blocks, states, LANES) in float32, filled up with 0."""
    x = x.float().T
    if missing := states - x.shape[0]:
        x = F.pad(x, (0, 0, 0, missing))
    return channel_rows(x, groups).movedim(0, 2).contiguous()


def from_channel_rows(x: Tensor, channels: int) -> Tensor:
    """(*, groups, blocks, LANES) -> (*, d) for so many channels of a group."""
    return x.flatten(-2)[..., :channels].flatten(-2)


def from_state_rows(x: Tensor, channels: int, states: int) -> Tensor:
    """(groups, blocks, states, LANES) -> (d, n)."""
    return from_channel_rows(x.movedim(2, 0), channels)[:states].T


def added(parts: Tensor) -> Tensor:
    """The sum over the first axis in its order: torch.sum picks an order by the number of threads."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def added_in_branches(parts: list[Tensor]) -> Tensor:
    """Add tensors, a power of two of them, into the first, two by two as in a tournament."""
    step = 1
    while step < len(parts):
        for i in range(0, len(parts), 2 * step):
            parts[i] += parts[i + step]
        step *= 2
    return parts[0]

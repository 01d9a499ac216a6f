"""The order of a route, as kernels are told."""

from torch import Tensor

from umamba_seg.kernels.problem import CHECKPOINT_STEP
from umamba_seg.kernels.routes import Order


def order_numbers(order: Order, held: list[Tensor], *, is_backward: bool = False) -> dict[str, int]:
    """The numbers of a frame that say which voxels come when; what must stay in memory meanwhile is added to `held`."""
    numbers = {
        "start": order.start, "run": order.run, "window": order.window, "pieces": order.pieces,
        "pieces_of_a_run": order.pieces_of_a_run if order.window else 1, "ahead": _ahead(order, is_backward),
    }  # fmt: skip
    for name, count, stride in zip(("slow", "middle", "fast"), order.counts, order.strides, strict=True):
        numbers |= {f"count_{name}": count, f"stride_{name}": stride}
    if order.offsets is not None:
        offsets = order.offsets.contiguous()
        held.append(offsets)
        numbers["offsets"] = offsets.data_ptr()
    if order.table is not None:
        table = order.table.contiguous()
        held.append(table)
        numbers |= {"table": table.data_ptr(), "table_batch": 8 * order.length * (len(table) > 1)}
    return numbers


def _ahead(order: Order, is_backward: bool) -> int:
    """How many voxels the tokens of the next tile lie ahead, for prefetching; 0 where no number tells."""
    if order.table is not None or not order.run:
        return 0
    piece = min(order.run, order.window) if order.offsets is None else order.length
    if piece <= CHECKPOINT_STEP:  # the next tile is the next piece
        return order.voxel(piece) - order.voxel(0) if piece < order.length else 0
    return (order.voxel(CHECKPOINT_STEP) - order.voxel(0)) * (-1 if is_backward else 1)

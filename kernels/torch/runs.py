"""All the work of a scan: for each route its pieces, as rows that are scanned side by side, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from torch import Tensor

from umamba_seg.kernels.problem import CHECKPOINT_STEP, Scan, slots
from umamba_seg.kernels.torch.blocks import Block, Rows, blocks
from umamba_seg.kernels.torch.parts import Part
from umamba_seg.kernels.torch.strands import Stretch, Table, strands


@dataclass(frozen=True, slots=True)
class Run:
    """Pieces of one route that are scanned side by side.

    Args:
        part: Which channels.
        route: The number of the route.
        strand: Where the tokens are.
        source: Where their C is.
        rows: Which pieces of the strand, and of which batch items.
        blocks: The tokens, in order.
    """

    part: Part
    route: int
    strand: Stretch | Table
    source: Stretch | Table
    rows: Rows
    blocks: list[Block]

    @property
    def pieces(self) -> Tensor:
        """The numbers of the pieces: (p,)."""
        return self.strand.pieces[self.rows.pieces]

    def place(self, name: str) -> Stretch | Table:
        """Where the tokens of a tensor are."""
        return self.source if name == "C" else self.strand

    def slots(self, block: Block) -> Tensor:
        """Where the states before a block are kept, for each piece: (p,). None are before the first."""
        return (self.strand.begins[self.rows.pieces] + block.tokens.start) // CHECKPOINT_STEP


def runs(scan: Scan, part: Part) -> Iterator[Run]:
    """All of them for some channels, in the order of the routes."""
    device = scan.u.device
    for route, order in enumerate(scan.orders()):
        for strand, source in strands(order, scan.space, device, is_shifted=scan.exclusive == "shift"):
            shape = (scan.batch, len(strand.pieces), strand.length)
            for rows, cut in blocks(shape, part.width * scan.states, device):
                yield Run(part, route, strand, source, rows, cut)


def kept_states(scan: Scan, checkpoints: Tensor) -> list[Tensor]:
    """The memory of the checkpoints for each route: (b, slots, n, d)."""
    counts = [slots(order) if scan.is_differentiated else 0 for order in scan.orders()]
    shapes = [(scan.batch, count, scan.states, scan.channels) for count in counts]
    sizes = [prod(shape) for shape in shapes]
    memory = checkpoints[: sum(sizes)].split(sizes)
    return [x.view(shape) for x, shape in zip(memory, shapes, strict=True)]

"""Routes and resets, as a caller gives them, made what the torch operators get."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from umamba_seg.kernels.routes import OFFSETS, TABLE, parse

Reset = int | Tensor | None


def told(
    routes: Sequence[str | Tensor],
    reset: Reset | Sequence[Reset],
    *,
    batch: int,
    device: torch.device,
    dims: int,
) -> tuple[str, Tensor | None, Tensor | None]:
    """The names of the routes, their tables and their offsets, as `routes.orders` reads them.

    Args:
        routes: Strings and tables.
        reset: One for all, or one for each.
        batch: How many items there are.
        device: Where tables and offsets must be.
        dims: How many spatial axes there are.
    """
    names, tables, cuts = [], [], []
    for route, own in zip(routes, _resets(reset, len(routes)), strict=True):
        is_table = isinstance(route, Tensor)
        name = TABLE if isinstance(route, Tensor) else parse(route, dims)
        if isinstance(route, Tensor):
            tables.append(_checked_table(route, batch, device))
        if isinstance(own, Tensor):
            if not is_table and len(name) == 2 and dims > 1:
                raise ValueError(f"a state starts anew at each line of {route!r}; offsets are for rasters and tables")
            cuts.append(_checked_offsets(own, device))
            name += f"/{OFFSETS}"
        elif own is not None:
            if isinstance(own, bool) or own < 1:
                raise ValueError(f"reset must be a number of tokens, at least 1; got {own}")
            name += f"/{own}"
        names.append(name)
    rows = max([len(table) for table in tables], default=1)
    longest = max([table.shape[1] for table in tables], default=0)
    tables = [F.pad(x, (0, longest - x.shape[1]), value=-1).expand(rows, -1) for x in tables]
    most = max([len(cut) for cut in cuts], default=0)
    cuts = [torch.cat([cut, cut[-1:].expand(most - len(cut))]) for cut in cuts]
    return ",".join(names), torch.stack(tables) if tables else None, torch.stack(cuts) if cuts else None


def _resets(reset: Reset | Sequence[Reset], routes: int) -> list[Reset]:
    resets = [reset] * routes if reset is None or isinstance(reset, int | Tensor) else list(reset)
    if len(resets) != routes:
        raise ValueError(f"reset must be one for all routes or have one for each of the {routes}; got {len(resets)}")
    return resets


def _checked_table(table: Tensor, batch: int, device: torch.device) -> Tensor:
    if table.dtype not in (torch.int32, torch.int64) or table.dim() not in (1, 2):
        raise ValueError(f"a table must be int32 or int64, (t,) or (b, t); got {table.dtype} {tuple(table.shape)}")
    if table.dim() == 2 and table.shape[0] != batch:
        raise ValueError(f"a table for each batch item must have {batch} rows; got {tuple(table.shape)}")
    if table.device != device:
        raise ValueError(f"a table must be on the device of u, {device}; got {table.device}")
    return table.long() if table.dim() == 2 else table.long()[None]


def _checked_offsets(offsets: Tensor, device: torch.device) -> Tensor:
    if offsets.dtype not in (torch.int32, torch.int64) or offsets.dim() != 1 or not len(offsets):
        raise ValueError(f"offsets must be int32 or int64, (s + 1,), and begin with 0; got {offsets}")
    if offsets.device != device:
        raise ValueError(f"offsets must be on the device of u, {device}; got {offsets.device}")
    return offsets.long()

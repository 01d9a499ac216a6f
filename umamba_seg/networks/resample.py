"""Weights of a network for another patch size, where small maps are mixed over their channels.

There a token is one channel, all the p voxels of its map. Weights that belong to a voxel are interpolated linearly over
the grid, so that the layer does to a map of the new size what it did to this map brought to the old size. Weights that
belong to an inner channel have no place on the grid. A layer that grows keeps all inner channels and gets further ones
with starting values, which nothing reads at first. One that shrinks keeps those that tell most, and what was read from
the others is read from these, as well as a linear fit over random maps can do; of the rank of delta the largest parts
stay. So growing changes the grid and nothing else, while shrinking forgets, and training has to mend it.

Shapes: p voxels of the old map, q of the new, e inner channels, n states, r rank of delta.
"""

from collections.abc import Mapping

import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

from umamba_seg.errors import UsageError
from umamba_seg.kernels import causal_conv, selective_scan
from umamba_seg.networks.published import check_weights
from umamba_seg.networks.residual_unet import ResidualUNet
from umamba_seg.networks.slot import MixerSlot
from umamba_seg.networks.topology import Size

Weights = Mapping[str, Tensor]

INNER_ROWS = ("A_log", "D", "conv1d.weight", "conv1d.bias", "dt_proj.weight", "dt_proj.bias")  # axis 0 is e
INNER_COLUMNS = ("x_proj.weight", "out_proj.weight")  # axis 1 is e


@torch.no_grad()
def resample_weights(weights: Weights, old: ResidualUNet, new: ResidualUNet) -> dict[str, Tensor]:
    """The weights of `old` for `new`, which differs in its patch size alone.

    Args:
        weights: A state_dict of `old`.
        old: The network that was trained. Its own values are not read.
        new: The network that is to be trained. Its values start the inner channels that the old one lacks.

    Returns:
        A state_dict of `new`. Patches of equal size change nothing.

    Raises:
        UsageError: The networks differ in more than the patch size, or the two sizes have other stages mixed over their
            channels.
        ModelError: The weights are not those of `old`.
    """
    check_weights(old.state_dict(), weights)
    _check_alike(old, new)
    result, fresh = dict(weights), new.state_dict()
    for prefix, old_size, new_size in _changed_slots(old, new):
        slot = _resampled_slot(_below(prefix, weights), _below(prefix, fresh), old_size, new_size)
        result |= {prefix + name: value.to(weights[prefix + name].dtype) for name, value in slot.items()}
    return result


def _resampled_slot(weights: Weights, fresh: Weights, old: Size, new: Size) -> dict[str, Tensor]:
    """The weights of one slot, a LayerNorm and a Mamba layer, for maps of another size."""
    device = weights["norm.weight"].device
    norm = {name: value.double() for name, value in weights.items() if name.startswith("norm.")}
    mamba = {name: value.double() for name, value in _below("mamba.", weights).items()}
    start = {name: value.to(device).double() for name, value in _below("mamba.", fresh).items()}

    read = _interpolation(new, old).to(device)  # (q, p): what the layer sees of a new map
    written = _interpolation(old, new).to(device)  # (p, q): where it writes to
    norm = {name: value @ written for name, value in norm.items()}  # (q)
    mamba["in_proj.weight"] = mamba["in_proj.weight"] @ read.T  # (2e, q)
    mamba["out_proj.weight"] = written.T @ mamba["out_proj.weight"]  # (q, e)
    if len(start["D"]) < len(mamba["D"]):
        mamba = _with_rank(_with_fewer_inner_channels(mamba, _random_tokens(norm), len(start["D"])), start)
    else:
        mamba = _with_more_inner_channels(_with_rank(mamba, start), start)
    return {**norm, **{f"mamba.{name}": value for name, value in mamba.items()}}


def _interpolation(source: Size, target: Size) -> Tensor:
    """What each voxel of the one grid gives to each of the other."""
    voxels = torch.eye(torch.Size(source).numel(), dtype=torch.float64).unflatten(1, source).unsqueeze(1)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(source)]
    return F.interpolate(voxels, size=target, mode=mode).flatten(1)


def _with_rank(mamba: dict[str, Tensor], start: Weights) -> dict[str, Tensor]:
    """The rank r of the step sizes as `start` has it: nothing reads a further one, of too many the largest stay."""
    old, new = mamba["dt_proj.weight"].shape[1], start["dt_proj.weight"].shape[1]
    rows, states = mamba["x_proj.weight"].tensor_split([old])  # (r, e), (2n, e)
    columns = mamba["dt_proj.weight"]  # (e, r)
    if new > old:
        rows = torch.cat((rows, start["x_proj.weight"][old:new, : rows.shape[1]]))
        columns = F.pad(columns, (0, new - old))
    elif new < old:
        left, sizes, right = torch.linalg.svd(columns @ rows, full_matrices=False)
        columns, rows = left[:, :new] * sizes[:new].sqrt(), sizes[:new, None].sqrt() * right[:new]
    return {**mamba, "x_proj.weight": torch.cat((rows, states)), "dt_proj.weight": columns}


def _with_more_inner_channels(mamba: dict[str, Tensor], start: Weights) -> dict[str, Tensor]:
    """As many inner channels as `start` has, the further ones its own; nothing reads them yet."""
    old, new = len(mamba["D"]), len(start["D"])
    halves = [mamba["in_proj.weight"].unflatten(0, (2, old)), start["in_proj.weight"].unflatten(0, (2, new))[:, old:]]
    return {
        **mamba,
        **{name: torch.cat((mamba[name], start[name][old:])) for name in INNER_ROWS},
        **{name: F.pad(mamba[name], (0, new - old)) for name in INNER_COLUMNS},
        "in_proj.weight": torch.cat(halves, dim=1).flatten(0, 1),  # (2e, q)
    }


def _with_fewer_inner_channels(mamba: dict[str, Tensor], tokens: Tensor, count: int) -> dict[str, Tensor]:
    """The `count` inner channels that tell most of what is read; readers of the others read what these tell of them."""
    u, y = _inner_values(mamba, tokens)  # (l, e) each
    loudness = mamba["out_proj.weight"].norm(dim=0)  # (e)
    _, order = scipy.linalg.qr((y * loudness).cpu().numpy(), mode="r", pivoting=True)  # the most telling first
    kept = torch.as_tensor(order[:count], device=y.device).sort().values
    from_u, from_y = (torch.linalg.lstsq(values[:, kept], values).solution for values in (u, y))  # (count, e)
    return {
        **mamba,
        **{name: mamba[name][kept] for name in INNER_ROWS},
        "in_proj.weight": mamba["in_proj.weight"].unflatten(0, (2, -1))[:, kept].flatten(0, 1),
        "x_proj.weight": mamba["x_proj.weight"] @ from_u.T,
        "out_proj.weight": mamba["out_proj.weight"] @ from_y.T,
    }


def _inner_values(mamba: Weights, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What x_proj and out_proj read, as in `MambaMixer`, for tokens (b, l, q) behind the norm; float64, so by torch."""
    rank, states = mamba["dt_proj.weight"].shape[1], mamba["A_log"].shape[1]
    u, gate = (tokens @ mamba["in_proj.weight"].T).chunk(2, dim=-1)
    u = causal_conv(u, mamba["conv1d.weight"][:, 0], mamba["conv1d.bias"], route="+x", backend="torch")
    delta, B, C = (u @ mamba["x_proj.weight"].T).split((rank, states, states), dim=-1)
    delta, A = delta @ mamba["dt_proj.weight"].T, -mamba["A_log"].exp()
    y = selective_scan(
        u,
        delta,
        A,
        B,
        C,
        D=mamba["D"],
        z=gate,
        delta_bias=mamba["dt_proj.bias"],
        delta_softplus=True,
        layout="bld",
        backend="torch",
    )
    return u.flatten(0, 1), y.flatten(0, 1)


def _random_tokens(norm: Weights) -> Tensor:
    """Maps as the norm writes them, each voxel drawn by itself; the same in every call."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(16, 256, len(norm["norm.weight"]), generator=generator, dtype=torch.float64)
    return values.to(norm["norm.weight"].device) * norm["norm.weight"] + norm["norm.bias"]


def _changed_slots(old: ResidualUNet, new: ResidualUNet) -> list[tuple[str, Size, Size]]:
    """The slots that are mixed over channels of another size: prefix of their weights, old and new size of the map."""
    if old.only_size is None or new.only_size is None:
        return []
    sizes = zip(old.topology.map_sizes(old.only_size), new.topology.map_sizes(new.only_size), strict=True)
    by_stage = dict(enumerate(sizes))
    return [(f"encoder.mamba_layers.{s}.", *by_stage[s]) for s in _channel_wise(old) if len(set(by_stage[s])) > 1]


def _channel_wise(network: ResidualUNet) -> list[int]:
    slots = network.encoder.mamba_layers.items()
    return [int(s) for s, slot in slots if isinstance(slot, MixerSlot) and slot.is_channel_wise]


def _below(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _check_alike(old: ResidualUNet, new: ResidualUNet) -> None:
    old_names, new_names = list(old.state_dict()), list(new.state_dict())
    if type(old) is not type(new) or old.topology != new.topology or old_names != new_names:
        raise UsageError("the networks may differ in their patch size alone", code="not-alike")
    if changed := sorted(set(_channel_wise(old)) ^ set(_channel_wise(new))):
        raise UsageError(
            f"stage {', '.join(map(str, changed))} is mixed over its channels at one of the two patch sizes, over its "
            "voxels at the other; such weights have nothing in common",
            how=[
                "choose a patch size at which the same stages have no more voxels than channels",
                "train anew with channel_tokens=False in arch_kwargs, which ties no weights to a size",
            ],
            code="not-alike",
        )

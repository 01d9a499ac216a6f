"""Weights that others have published: files read without running code in them, and what network they are of."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from umamba_seg.errors import ModelError
from umamba_seg.networks import lightm_unet_weights, segmamba_weights
from umamba_seg.networks.published import tensor, unwrapped
from umamba_seg.networks.umamba_published import first_name

# Beside tensors, nnU-Net's checkpoints hold the numbers of its log, as numpy made them.
_HARMLESS: list[Any] = [
    multiarray.scalar, multiarray._reconstruct, np.ndarray, np.dtype, defaultdict, dict,
    *(type(np.dtype(number)) for number in ("f2", "f4", "f8", "i4", "i8", "bool")),
    (multiarray.scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recognised:
    """What weights say of the network they are of.

    Args:
        network: Its name in `NETWORKS`.
        weights: By their names here, without aliases.
        input_channels: Of the image.
        num_classes: Of the logits.
        dims: Spatial axes.
        arch_kwargs: The keyword arguments of the network; None where strides are among them, which only a plan knows.
    """

    network: str
    weights: dict[str, Tensor]
    input_channels: int
    num_classes: int
    dims: int
    arch_kwargs: dict[str, Any] | None


def read_file(path: Path, *, is_trusted: bool = False) -> dict[str, Any]:
    """What `torch.save` wrote: a checkpoint or the weights alone.

    Args:
        path: The file.
        is_trusted: Whether code in it may run, as unpickling does.

    Raises:
        ModelError: It cannot be read, or not without running code.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=not is_trusted)
    except UnpicklingError as fault:
        raise _not_plain(path, fault) from fault
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise ModelError(f"the file cannot be read: {reason}", where=str(path), code="bad-weights-file") from fault
    if not isinstance(content, dict):
        what = f"the file holds a {type(content).__name__}, neither a checkpoint nor weights by name"
        raise ModelError(what, where=str(path), code="bad-weights-file")
    return content


def recognise(content: Mapping[str, Any]) -> Recognised:
    """Tell from names and shapes of what network weights are; see `unwrapped` for what they may stand in.

    Raises:
        ModelError: They are of none of ours.
    """
    weights = unwrapped(content)
    if segmamba_weights.FIRST_CONV in weights:
        network, arch_kwargs, weights = segmamba_weights.read_segmamba_weights(weights)
        inputs = tensor(weights, "encoder1.layer.conv1.conv.weight").shape[1]
        classes = len(tensor(weights, "out.conv.conv.bias"))
        return Recognised(network, weights, inputs, classes, arch_kwargs["dims"], arch_kwargs)
    if lightm_unet_weights.FIRST_CONV in weights:
        arch_kwargs = lightm_unet_weights.read_lightm_weights(weights)
        inputs = len(tensor(weights, "convInit.0.conv.weight"))  # depthwise
        classes = len(tensor(weights, "conv_final.2.1.conv.bias"))
        return Recognised("lightm_unet", weights, inputs, classes, arch_kwargs["dims"], arch_kwargs)
    return _recognise_umamba(weights)


def _recognise_umamba(weights: dict[str, Tensor]) -> Recognised:
    heads = weights.get("decoder.seg_layers.0.weight")
    is_new, is_old = "decoder.upsample_layers.0.conv.weight" in weights, "decoder.transpconvs.0.weight" in weights
    names = {
        "umamba_enc": is_new and any(name.startswith("encoder.mamba_layers.") for name in weights),
        "umamba_bot": is_new and "mamba_layer.norm.weight" in weights,
        "umamba_gen1_enc": is_old and any(name.startswith("encoder.mamba_layers.") for name in weights),
        "umamba_gen1_bot": is_old and "ln.weight" in weights and "mamba.in_proj.weight" in weights,
    }
    network = next((name for name, is_it in names.items() if is_it), None)
    if heads is None or network is None:
        shown = ", ".join(list(weights)[:3])
        raise ModelError(
            f"these weights are of no network known here; the first of {len(weights)} are {shown}",
            how=["`umamba networks` lists those whose weights can be imported"],
            code="unknown-weights",
        )
    weights = {
        name: value for name, value in weights.items() if first_name(name) == name or first_name(name) not in weights
    }
    stem = "encoder.stem.0.conv1.weight" if is_new else "encoder.stem.convs.0.conv.weight"
    return Recognised(network, weights, tensor(weights, stem).shape[1], len(heads), heads.dim() - 2, None)


def _not_plain(path: Path, fault: Exception) -> ModelError:
    wanted = next((line.strip() for line in str(fault).splitlines() if "GLOBAL" in line), "")
    return ModelError(
        f"reading the file would run code from it{f' ({wanted[:120]})' if wanted else ''}",
        where=str(path),
        how=["add --trust only if you trust whoever made the file as you trust the programs you run"],
        code="untrusted-pickle",
    )

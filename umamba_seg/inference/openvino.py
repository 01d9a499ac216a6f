"""Tiles through OpenVINO: the networks of a model in float32 on CPUs, for less processor time than torch takes.

Its logits are not torch's: they differ by some 1e-4 of their range, so a label may change where two classes are almost
even. Each network is therefore compared with torch on one tile before it is trusted, and nobody gets it unasked.
"""

import hashlib
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from umamba_seg.errors import BackendUnavailableError, UsageError
from umamba_seg.inference.backends import averaged, flips
from umamba_seg.inference.model_folder import Weights
from umamba_seg.kernels.conv_problem import Conv
from umamba_seg.kernels.problem import Scan

LARGEST_DIFFERENCE = 1e-2  # of a logit
LEAST_AGREEMENT = 0.9999  # parts of the voxels whose label is torch's
FORMAT = 1  # of what is kept; raise it when the conversion changes
OWN_OPERATORS = "umamba_seg"  # the namespace under which torch knows our scans
LARGEST_SCAN = 2**21  # state updates; with four times as many, small networks were slower than with our own scan
NETWORK = "network.xml"  # openvino puts the weights beside it


class OpenvinoBackend:
    """The networks as openvino runs them.

    Args:
        networks: One for each fold, (b, c, *tile) to (b, classes, *tile).
        axes: Sets of axes to mirror tiles along, see `backends.flips`.
    """

    name = "openvino"

    def __init__(self, networks: Sequence[Callable[[Tensor], Tensor]], axes: Sequence[tuple[int, ...]]) -> None:
        self.networks, self.flips = networks, list(axes)
        self.folds = len(networks)

    def __call__(self, fold: int, tiles: Tensor) -> Tensor:
        """The logits, averaged over mirrored tiles where that was asked for."""
        return averaged(self.networks[fold], tiles, self.flips)


def why_not(weights: Weights, device: str) -> str | None:
    """None where openvino can be tried on a model, else the reason it cannot."""
    if reason := _why_not_here(device):
        return reason
    (network,) = replace(weights, folds=weights.folds[:1]).networks()
    return _why_not_network(network, _example(weights))


def make(weights: Weights, device: str = "cpu", *, mirror: bool, precision: str = "auto") -> OpenvinoBackend:
    """The backend for a model, each fold compared with torch on one tile.

    Args:
        weights: Of the model.
        device: Only `cpu` will do.
        mirror: Whether tiles are also seen mirrored.
        precision: `auto` and `fp32` are the same here.

    Raises:
        BackendUnavailableError: It cannot run this model here, or does not agree with torch.
        UsageError: Another precision was asked for.
        ModelError: The network cannot be built.
    """
    if precision not in ("auto", "fp32"):
        how = ["--precision fp32", "--backend torch"]
        what = f"openvino runs networks in fp32 only, not in {precision}"
        raise UsageError(what, where="--precision", how=how, code="backend-precision")
    if reason := _why_not_here(device):
        raise _unavailable(reason)
    networks = weights.networks()
    if reason := _why_not_network(networks[0], _example(weights)):
        raise _unavailable(reason)
    made = [_trusted(network, weights) for network in networks]
    return OpenvinoBackend(made, flips(weights.mirror_axes) if mirror else [])


def cache_folder() -> Path:
    """Where converted networks are kept; anything in it may be deleted at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("umamba") / "openvino"


def _why_not_here(device: str) -> str | None:
    if device != "cpu":
        return f"it runs on the cpu, and the device is {device}"
    return None if find_spec("openvino") else "openvino is not installed (pip install umamba-seg[openvino])"


def _why_not_network(network: nn.Module, tile: Tensor) -> str | None:
    plain = _PlainScans()
    with FakeTensorMode(allow_non_fake_inputs=True), plain:  # shapes only, nothing is computed
        network(torch.empty(tile.shape))
    return plain.reason


def _unavailable(reason: str) -> BackendUnavailableError:
    what, how = f"backend 'openvino' cannot run this model: {reason}", ["--backend torch runs every model"]
    return BackendUnavailableError(what, where="--backend", how=how, code="backend-unavailable")


class _PlainScans(TorchFunctionMode):
    """Puts torch's own operators in the place of ours where they are fast enough; `reason` tells where they are not."""

    reason: str | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "namespace", None) != OWN_OPERATORS:
            return function(*args, **kwargs or {})
        if function is torch.ops.umamba_seg.scan.default and _is_plain(scan := Scan(*args[:-1])):
            if scan.u.numel() * scan.states <= LARGEST_SCAN:
                y = _scan(scan)
                return y[None], y.new_empty(0), y.new_empty(0)
            self.reason = f"it scans {scan.u.shape[1:-1].numel()} voxels, for which openvino takes longer than torch"
        elif function is torch.ops.umamba_seg.causal_conv.default and _is_raster((conv := Conv(*args[:-1])).route):
            return _conv(conv)
        else:
            self.reason = self.reason or "it scans in a way that openvino has no operators for"
        return function(*args, **kwargs or {})


def _is_raster(route: str) -> bool:
    """Whether a route visits voxels as they lie in memory."""
    return route in ("+x", "+y+x", "+z+y+x")


def _is_plain(scan: Scan) -> bool:
    """Whether it is the scan of Mamba's own layer, with nothing that other mixers ask for."""
    extras = (scan.weights, scan.initial_state, scan.table, scan.offsets)
    rest = (scan.decay_scale, scan.exact_gain, scan.exclusive, scan.is_stacked, scan.keeps_last, scan.y_scale != 1)
    is_one = all(x is None or x.shape[0] == 1 for x in (scan.u, scan.z)) and scan.B.shape[-2] == scan.C.shape[-2] == 1
    return is_one and _is_raster(scan.routes) and all(x is None for x in extras) and not any(rest)


def _scan(scan: Scan) -> Tensor:  # (b, *space, d)
    """All states at once, in as many rounds as the number of tokens can be halved."""
    u, delta, B, C = (x[0].flatten(1, len(scan.space)) for x in (scan.u, scan.delta, scan.B, scan.C))
    dt = delta if scan.delta_bias is None else delta + scan.delta_bias
    dt = F.softplus(dt) if scan.delta_softplus else dt
    decay, h = torch.exp(dt[..., None] * scan.A[0]), (dt * u)[..., None] * B  # (b, l, d, n); B is (b, l, 1, n)
    reach, length = 1, int(u.shape[1])
    while reach < length:  # h holds what the last `reach` tokens have left, decay what is left of what came before
        h = torch.cat([h[:, :reach], h[:, reach:] + decay[:, reach:] * h[:, :-reach]], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    y = (h * C).sum(-1)
    y = y if scan.D is None else y + scan.D * u
    y = y.view(scan.u.shape[1:])
    return y if scan.z is None else y * F.silu(scan.z[0])


def _conv(conv: Conv) -> Tensor:  # (b, *space, d)
    width, tokens = conv.weight.shape[1], conv.u.flatten(1, len(conv.space)).transpose(1, 2)
    before = (width - 1) // 2 if conv.is_centred else width - 1
    tokens = F.pad(tokens, (before, width - 1 - before))
    y = F.conv1d(tokens, conv.weight[:, None], conv.bias, groups=conv.weight.shape[0]).transpose(1, 2)
    return (F.silu(y) if conv.has_silu else y).reshape(conv.u.shape)


class _Network:
    """A network compiled for this processor, (b, c, *tile) to (b, classes, *tile), one tile after the other."""

    def __init__(self, model: Any) -> None:
        compiled = _core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",  # else bf16 on processors that have it: logits are off by 0.5
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,  # sums and decisions go on beside the network
            },
        )
        self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self._request = compiled.create_infer_request()

    def __call__(self, tiles: Tensor) -> Tensor:
        made = [self._request.infer([tile[None].numpy()], share_inputs=True)[0] for tile in tiles.contiguous()]
        return torch.from_numpy(np.concatenate(made))


def _trusted(network: nn.Module, weights: Weights) -> _Network:
    """The network, from the cache or else converted, once it has agreed with torch."""
    has_regions = weights.model.labels.has_regions
    example = _example(weights)
    with torch.inference_mode():
        expected = network(example)
    kept = cache_folder() / _key(network, weights)
    if made := _read(kept, example, expected, has_regions=has_regions):
        return made
    model = _convert(network, example)
    made = _Network(model)
    if reason := _disagreement(made(example), expected, has_regions=has_regions):
        raise _unavailable(reason)
    _keep(model, kept)
    return made


def _example(weights: Weights) -> Tensor:
    """A tile to compare on: coarse structure and fine noise, as normalised images have them."""
    tile, channels = weights.configuration.patch_size, weights.input_channels
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, channels, *(math.ceil(size / 8) for size in tile), generator=generator)
    fine = torch.randn(1, channels, *tile, generator=generator)
    return F.interpolate(coarse, tuple(tile)) + fine / 4


def _disagreement(logits: Tensor, expected: Tensor, *, has_regions: bool) -> str | None:
    """None where logits are close to torch's and so are the labels, else in what way they are not."""
    difference = (logits - expected).abs().max().item()
    if not difference < LARGEST_DIFFERENCE:  # NaN compares false
        return (
            f"on a test tile its logits differ from torch's by {difference:.2g}, at most {LARGEST_DIFFERENCE:g} is fine"
        )
    labels, wanted = ((x > 0 if has_regions else x.argmax(1)) for x in (logits, expected))
    others = int((labels != wanted).sum())
    if others > math.ceil((1 - LEAST_AGREEMENT) * wanted.numel()):  # a small tile may have one
        return f"on a test tile {others} of {wanted.numel()} voxels get another label than from torch"
    return None


def _convert(network: nn.Module, example: Tensor) -> Any:
    """As openvino.convert_model does it, which would tell Google of it and run the network three times."""
    _openvino()
    from openvino.frontend import FrontEndManager, OpConversionFailure
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    try:
        with torch.inference_mode(), _PlainScans(), warnings.catch_warnings():
            # The tracer warns of sizes, which do not change, and that it is old; torch.export gave twice the error.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, example, check_trace=False, strict=False)
        decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        model.reshape(list(example.shape))
    except (RuntimeError, OpConversionFailure) as fault:
        last = str(fault).strip().splitlines()[-1].removeprefix("-- ")  # the lines before name openvino's own sources
        raise _unavailable(f"openvino cannot express its network: {last}") from fault
    return model


def _key(network: nn.Module, weights: Weights) -> str:
    architecture = weights.configuration.network_arch_init_kwargs
    described = [FORMAT, _openvino().get_version(), weights.tile, architecture, f"{type(network)}", f"{network}"]
    key = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):  # a state_dict has some twice
        key.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        key.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return key.hexdigest()[:32]


def _read(folder: Path, example: Tensor, expected: Tensor, *, has_regions: bool) -> _Network | None:
    """What an earlier run has kept; None where there is nothing or where it is damaged."""
    if not (folder / NETWORK).is_file():
        return None
    with suppress(RuntimeError):  # openvino's for all that may be wrong with files
        kept = _Network(_core().read_model(folder / NETWORK))
        if _disagreement(kept(example), expected, has_regions=has_regions) is None:
            return kept
    return None


def _keep(model: Any, folder: Path) -> None:
    """Write a network for later runs; a cache that cannot be written is none, and nothing is lost."""
    with suppress(OSError, RuntimeError):  # openvino's own for a full disk
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".part") as part:
            beside = Path(part) / folder.name
            beside.mkdir()
            _openvino().save_model(model, beside / NETWORK, compress_to_fp16=False)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)


@cache
def _core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    with _hidden("openvino_telemetry"):  # without it, openvino sends no word of its use
        import openvino
    return openvino


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail as if it were not installed."""
    is_loaded, before = package in sys.modules, sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if is_loaded:
            sys.modules[package] = before  # type: ignore[assignment]

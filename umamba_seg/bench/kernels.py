"""How fast the scans are here, and the convolution: ratios of times taken in turns, to a plain loop and to others.

Shapes: b batch, d channels, l tokens, n states. Times are the least of a few turns: CPU seconds on one thread, which
other programs disturb little, and wall seconds on several.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from umamba_seg.bench.memory import peak_growth
from umamba_seg.errors import ModelError
from umamba_seg.kernels import causal_conv, info, scan_volume, selective_scan

LONG, WIDE = (1, 64, 32768, 16), (1, 384, 4096, 16)
VOLUME = (1, 32, 32, 32, 64)
STATES = 16
WIDTH = 4  # of the convolution
LENGTHS = (2**12, 2**15, 2**18, 2**20)
SIX_LINES = ("+x", "-x", "+y", "-y", "+z", "-z")
SIX_RASTERS = ("zyx", "-z-y-x", "zxy", "-z-x-y", "xyz", "-x-y-z")  # each axis fastest once, both ways
NARROW = {  # code for AVX2 only; numba reads these
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+f16c,+sse4.2,+bmi,+bmi2,+lzcnt,+popcnt",
}
TOLERANCE = 1e-5
AT_ONCE = 3  # one to warm the caches up, in which the job before has left its own
# per state update, a GPU of 132 multiprocessors at 1.85 GHz: 16 exponentials and 128 float32 lanes each per clock
PS_OF_AN_EXPONENTIAL, PS_OF_A_BACKWARD_UPDATE = 0.256, 0.48

Tensors = dict[str, Tensor]
Scan = Callable[..., Any]
Jobs = dict[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        what: What was measured.
        milliseconds: Of ours.
        against: What it is compared with.
        ratio: Its time over ours, or what `against` says.
        bound: What the ratio should be at least or at most, as a sentence; "" for none.
    """

    what: str
    milliseconds: float
    against: str
    ratio: float
    bound: str = ""


def measure(backend: str = "auto", device: str = "cpu", turns: int = 5) -> Iterator[Row]:
    """All rows, after the scan has been held to a float64 loop."""
    check(backend, device)
    if device == "cuda":
        yield from _on_gpu(backend, turns)
        return
    before = torch.get_num_threads()
    try:
        for part in (_against_a_loop, _on_threads, _along_axes, _by_length, _convolution):
            torch.set_num_threads(1)
            yield from part(backend, turns)
        if (info()["cpu"].backend if backend == "auto" else backend) == "numba":
            yield from _for_a_narrow_processor(turns)
    finally:
        torch.set_num_threads(before)


def check(backend: str, device: str) -> None:
    """No time is told of a scan that is wrong."""
    tensors = _tensors(2, 33, 300, 5, device)
    expected = _loop(**{name: x.double() for name, x in tensors.items()})
    got = _ours(backend)(**tensors)
    error = ((got.double() - expected).norm() / expected.norm()).item()
    if not error <= TOLERANCE:
        raise ModelError(f"the scan is {error:.1g} off the float64 loop, {TOLERANCE:g} allowed; no time means anything")


def _loop(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """The recurrence with unbind and stack, so that its backward pass is linear in the tokens too."""
    dt = F.softplus(delta + delta_bias)
    h, ys = u.new_zeros(u.shape[0], *A.shape), []
    for u_t, dt_t, B_t, C_t in zip(*(x.unbind(1) for x in (u, dt, B, C)), strict=True):
        h = torch.exp(dt_t[..., None] * A) * h + (dt_t * u_t)[..., None] * B_t[:, None]
        ys.append((h * C_t[:, None]).sum(-1))
    return (torch.stack(ys, dim=1) + D * u) * F.silu(z)


def _tensors(b: int, d: int, length: int, n: int, device: str = "cpu") -> Tensors:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    return {
        "u": normal(b, length, d),
        "delta": normal(b, length, d) - 2,
        "A": -torch.arange(1.0, n + 1, device=device).repeat(d, 1),
        "B": normal(b, length, n),
        "C": normal(b, length, n),
        "D": normal(d),
        "z": normal(b, length, d),
        "delta_bias": normal(d) / 2,
    }


def _channels_first(tensors: Tensors) -> Tensors:
    return {name: x.mT.contiguous() if x.dim() == 3 else x for name, x in tensors.items()}


def _forward(function: Scan, tensors: Tensors) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function(**tensors)

    return run


def _training(function: Scan, tensors: Tensors) -> Callable[[], object]:
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    weights = torch.randn_like(tensors["u"])

    def run() -> object:
        return torch.autograd.grad(function(**leaves), list(leaves.values()), weights)

    return run


def _ours(backend: str, layout: str = "bld") -> Scan:
    return partial(selective_scan, delta_softplus=True, layout=layout, backend=backend)


def _least(jobs: Jobs, turns: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of each job at its best of a few at once; they take turns, so that a busy minute hits all alike."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(turns):
        for name, job in jobs.items():
            for _ in range(AT_ONCE):
                start = clock()
                job()
                best[name] = min(best[name], 1e3 * (clock() - start))
    return best


def _against_a_loop(backend: str, turns: int) -> Iterator[Row]:
    for shape, bounds in ((LONG, (110, 110)), (WIDE, (25, 30))):
        tensors = _tensors(*shape)
        numbers = torch.randn(shape[0] * shape[1] * shape[2] * shape[3])
        jobs: Jobs = {
            "forward": _forward(_ours(backend), tensors),
            "training": _training(_ours(backend), tensors),
            "channels first": _forward(_ours(backend, "bdl"), _channels_first(tensors)),
            "exp": partial(torch.exp, numbers, out=numbers),
        }
        ms = _least(jobs, turns, time.process_time)
        slow = {"forward": _forward(_loop, tensors), "training": _training(_loop, tensors)}
        loop = _least(slow, 1, time.process_time)
        for (mode, took), bound in zip(loop.items(), bounds, strict=True):
            yield Row(f"{mode} {shape}", ms[mode], "plain loop / ours", took / ms[mode], f"at least {bound}")
        if shape is LONG:
            yield Row(
                f"forward {shape}", ms["forward"], "ours / exponentials", ms["forward"] / ms["exp"], "at most 0.6"
            )
            yield Row(
                f"training {shape}", ms["training"], "training / forward", ms["training"] / ms["forward"], "at most 6"
            )
            ratio = ms["channels first"] / ms["forward"]
            yield Row(f"forward {shape}, bdl", ms["channels first"], "bdl / bld", ratio, "at most 1.3")


def _on_threads(backend: str, turns: int) -> Iterator[Row]:
    tensors, numbers = _tensors(*LONG), [2, *(n for n in (4, 8, 16) if n <= (os.cpu_count() or 1))]
    for mode, job in {"forward": _forward, "training": _training}.items():
        run = job(_ours(backend), tensors)
        jobs: Jobs = {f"{threads}": partial(_with_threads, threads, run) for threads in (1, *numbers)}
        ms = _least(jobs, 4 * turns, time.perf_counter)
        for n in numbers:
            yield Row(
                f"{mode} {LONG}, {n} threads", ms[f"{n}"], "one thread / ours", ms["1"] / ms[f"{n}"],
                "at least 1.7" if n == 2 else "",
            )  # fmt: skip


def _with_threads(threads: int, run: Callable[[], object]) -> None:
    torch.set_num_threads(threads)
    run()


def _along_axes(backend: str, turns: int) -> Iterator[Row]:
    u, delta, B, C = _volume()
    A = -torch.arange(1.0, STATES + 1).repeat(VOLUME[-1], 1)
    with torch.no_grad():

        def scan(*routes: str, merge: str = "sum") -> Callable[[], object]:
            return lambda: scan_volume(
                u, delta, A, B, C, routes=routes, merge=merge, delta_softplus=True, backend=backend
            )

        jobs: Jobs = {axis: scan(axis) for axis in ("+x", "+y", "+z", "zyx", "xyz")}
        jobs["rasters"] = scan(*SIX_RASTERS)
        jobs |= {merge: scan(*SIX_LINES, merge=merge) for merge in ("sum", "mean")}
        ms = _least(jobs, 2 * turns, time.process_time)
    for name in ("+y", "+z"):
        yield Row(f"lines {name} of {VOLUME}", ms[name], "ours / lines +x", ms[name] / ms["+x"], "at most 1.25")
    yield Row(f"6 lines of {VOLUME}", ms["sum"], "six / one", ms["sum"] / ms["+x"], "at most 6.5")
    yield Row(f"raster xyz of {VOLUME}", ms["xyz"], "ours / raster zyx", ms["xyz"] / ms["zyx"])
    yield Row(f"6 rasters of {VOLUME}", ms["rasters"], "six / one", ms["rasters"] / ms["zyx"])
    for merge in ("sum", "mean"):
        extra = _in_child("memory", backend, merge)
        if extra is not None:
            what = f"6 lines of {VOLUME}, {merge}"
            yield Row(what, ms[merge], "peak memory / inputs and outputs", extra, "at most 1.15")


def _volume() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(VOLUME, generator=generator),
        torch.randn(VOLUME, generator=generator) - 2,
        torch.randn(*VOLUME[:-1], STATES, generator=generator),
        torch.randn(*VOLUME[:-1], STATES, generator=generator),
    )


def _by_length(backend: str, turns: int) -> Iterator[Row]:
    per_token = {}
    for length in LENGTHS:
        tensors = _tensors(1, 16, length, STATES)
        ms = _least({"": _forward(_ours(backend), tensors)}, max(2, turns), time.process_time)[""]
        per_token[length] = ms / length
        ratio = per_token[length] / min(per_token.values())
        yield Row(f"forward (1, 16, {length}, {STATES})", ms, "time per token / least", ratio, "at most 1.5")


def _convolution(backend: str, turns: int) -> Iterator[Row]:
    """The convolution against torch's own, which wants channels first."""
    u, weight, bias = torch.randn(1, LONG[2], LONG[1]), torch.randn(LONG[1], WIDTH), torch.randn(LONG[1])
    channels_first = u.mT.contiguous()

    def theirs() -> Tensor:
        padded = F.pad(channels_first, (WIDTH - 1, 0))
        return F.silu(F.conv1d(padded, weight[:, None], bias, groups=LONG[1]))

    jobs: Jobs = {"ours": lambda: causal_conv(u, weight, bias, route="+x", backend=backend), "theirs": theirs}
    ms = _least(jobs, turns, time.process_time)
    yield Row(f"causal_conv {tuple(u.shape)}", ms["ours"], "torch's conv1d / ours", ms["theirs"] / ms["ours"])


def _for_a_narrow_processor(turns: int) -> Iterator[Row]:
    if not {"avx512f", "avx2"} <= _features():
        return
    tensors = _tensors(*LONG)
    for mode, job in {"forward": _forward, "training": _training}.items():
        ms = _least({"": job(_ours("numba"), tensors)}, turns, time.process_time)[""]
        narrow = _in_child(mode, str(turns), variables=NARROW)
        if narrow is not None:
            yield Row(f"{mode} {LONG}, AVX2 code", narrow, "AVX-512 code / AVX2 code", ms / narrow, "at least 0.45")


def _features() -> set[str]:
    import llvmlite.binding as llvm

    return {name for name, is_there in llvm.get_host_cpu_features().items() if is_there}


def _on_gpu(backend: str, turns: int) -> Iterator[Row]:
    """Scans of a volume against the least time the GPU needs for their arithmetic and for their memory."""
    bytes_per_ms = _copied_per_ms()
    for dtype in (torch.bfloat16, torch.float32):
        given = _gpu_volume(dtype)
        lines: Scan = partial(scan_volume, routes=["+x"], delta_softplus=True, backend=backend)
        forward, training = _forward(lines, given), _training(lines, given)
        ms = {"forward": _on_stream(forward, turns), "training": _on_stream(training, turns)}
        backward = ms["training"] - ms["forward"]
        updates, nbytes = given["u"].numel() * STATES, given["u"].nbytes
        floors = {
            "forward": max(updates * PS_OF_AN_EXPONENTIAL * 1e-9, 4 * nbytes / bytes_per_ms),  # u, delta, z, y
            "backward": max(updates * PS_OF_A_BACKWARD_UPDATE * 1e-9, 7 * nbytes / bytes_per_ms),  # those, and adjoints
        }
        name = f"lines of {tuple(given['u'].shape)}, {str(dtype).removeprefix('torch.')}"
        yield Row(f"forward, {name}", ms["forward"], "ours / floor", ms["forward"] / floors["forward"], "at most 1.5")
        yield Row(f"backward, {name}", backward, "ours / floor", backward / floors["backward"], "at most 2")
        for what, routes in {"a raster": ["zyx"], "six lines": SIX_LINES, "six rasters": SIX_RASTERS}.items():
            scan: Scan = partial(scan_volume, routes=list(routes), delta_softplus=True, backend=backend)
            for mode, job in {"forward": _forward, "training": _training}.items():
                taken = _on_stream(job(scan, given), turns)
                yield Row(f"{mode}, {what} of it", taken, "ours / one line scan", taken / ms[mode])
    yield from _gpu_convolution(backend, turns, bytes_per_ms)
    yield from _gpu_lengths(backend, turns)
    yield from _against_mamba_ssm(backend, turns)


def _gpu_volume(dtype: torch.dtype) -> Tensors:
    """Two volumes of 64³ voxels with 384 channels."""
    u = torch.randn(2, 64, 64, 64, 384, device="cuda", dtype=dtype)
    B = torch.randn(2, 64, 64, 64, STATES, device="cuda", dtype=dtype)
    A = -torch.arange(1.0, STATES + 1, device="cuda").repeat(384, 1)
    return {"u": u, "delta": u - 2, "A": A, "B": B, "C": B.flip(0), "z": u.clone()}


def _copied_per_ms() -> float:
    """Bytes that the GPU reads and writes in a millisecond."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _on_stream(lambda: target.copy_(source), 10)


def _gpu_convolution(backend: str, turns: int, bytes_per_ms: float) -> Iterator[Row]:
    """The convolution against the least that reading and writing its volumes takes."""
    u = _gpu_volume(torch.bfloat16)["u"]
    given = {"u": u, "weight": torch.randn(384, WIDTH, device="cuda"), "bias": torch.randn(384, device="cuda")}
    for route in ("+x", "zyx", "+z"):
        conv: Scan = partial(causal_conv, route=route, backend=backend)
        for mode, job, volumes in (("forward", _forward, 2), ("training", _training, 5)):  # u, y; u and two adjoints
            ms, floor = _on_stream(job(conv, given), turns), volumes * u.nbytes / bytes_per_ms
            yield Row(f"{mode}, causal_conv {route} of {tuple(u.shape)}", ms, "ours / floor", ms / floor)


def _gpu_lengths(backend: str, turns: int) -> Iterator[Row]:
    """Time per token of ever longer sequences, against that of the first; and what channels in front cost."""
    first = 0.0
    for length in LENGTHS[1:]:
        tensors = _tensors(1, 384, length, STATES, "cuda")
        ms = _on_stream(_forward(_ours(backend), tensors), turns)
        first = first or ms / length
        yield Row(
            f"forward (1, 384, {length}, {STATES})", ms, "per token / the first", ms / length / first, "at most 1.5"
        )
    tensors = _tensors(1, 384, LENGTHS[1], STATES, "cuda")
    for mode, job in {"forward": _forward, "training": _training}.items():
        each = {
            "bld": _on_stream(job(_ours(backend), tensors), turns),
            "bdl": _on_stream(job(_ours(backend, "bdl"), _channels_first(tensors)), turns),
        }
        yield Row(f"{mode} (1, 384, {LENGTHS[1]}, {STATES}), bdl", each["bdl"], "bdl / bld", each["bdl"] / each["bld"])


def _against_mamba_ssm(backend: str, turns: int) -> Iterator[Row]:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # type: ignore[import-not-found]
    except ImportError:
        return
    tensors = _channels_first(_tensors(2, 384, 32768, STATES, "cuda"))
    for mode, job in {"forward": _forward, "training": _training}.items():
        ours = _on_stream(job(_ours(backend, "bdl"), tensors), turns)
        theirs = _on_stream(job(partial(selective_scan_fn, delta_softplus=True), tensors), turns)
        yield Row(f"{mode} (2, 384, 32768, {STATES})", ours, "mamba_ssm / ours", theirs / ours)


def _on_stream(job: Callable[[], object], turns: int) -> float:
    """Milliseconds on the GPU of the best of a few; each is several in a row, so that the GPU waits for no launch."""
    best = float("inf")
    for turn in range(turns + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(AT_ONCE):
            job()
        end.record()
        torch.cuda.synchronize()
        if turn > 1:
            best = min(best, start.elapsed_time(end) / AT_ONCE)
    return best


def _in_child(*arguments: str, variables: dict[str, str] | None = None) -> float | None:
    """What another process measures; None where it cannot."""
    environment = {**os.environ, **(variables or {})}
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return float(json.loads(done.stdout)) if done.returncode == 0 else None


def _peak_memory(backend: str, merge: str) -> float:
    """Peak memory of a scan along six routes, in inputs and outputs."""
    volume = _volume()
    A = -torch.arange(1.0, STATES + 1).repeat(VOLUME[-1], 1)
    u, delta, B, C = volume

    def scan(size: int) -> Any:
        u_part, delta_part, B_part, C_part = (x[:, :size] for x in (u, delta, B, C))
        return scan_volume(u_part, delta_part, A, B_part, C_part, routes=SIX_LINES, merge=merge, backend=backend)

    scan(1)  # kernels and threads are there from now on
    y: list[Tensor] = []
    growth = peak_growth(lambda: y.append(scan(VOLUME[1])))
    needed = sum(x.nbytes for x in (*volume, *y))
    return (growth + needed - y[0].nbytes) / needed


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(row) for row in rows]


def _child(what: str, *arguments: str) -> float:
    torch.set_num_threads(1)
    if what == "memory":
        return _peak_memory(*arguments)
    job = {"forward": _forward, "training": _training}[what]
    return _least({"": job(_ours("numba"), _tensors(*LONG))}, int(arguments[0]), time.process_time)[""]


if __name__ == "__main__":
    print(json.dumps(_child(*sys.argv[1:])))

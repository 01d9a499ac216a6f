"""How much faster the torch backend scans than a loop over tokens. Run in the root: python -m benchmarks.scan_torch

Every shape is first held to the float64 oracle. Then backend and loop take turns, and the medians are printed with
their ratio: CPU time on one thread (the default: it survives a busy machine), wall time on more.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.closeness import assert_within
from tests.kernels.scan_cases import Case, outcome
from tests.oracles.scan import selective_scan as oracle
from umamba_seg.kernels import selective_scan
from umamba_seg.kernels.torch import blocks

SHAPES = [(1, 64, 32768, 16), (2, 64, 4096, 16), (2, 32, 512, 16), (2, 64, 216, 16), (2, 640, 64, 16), (2, 320, 8, 16)]
CHECKED_TOKENS = 600  # the oracle is slow; more than a block


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor) -> Tensor:
    """The recurrence with unbind and stack, so that its backward pass is linear in the tokens too."""
    dt = F.softplus(delta + delta_bias)
    h, ys = u.new_zeros(u.shape[0], *A.shape), []
    for dt_t, x_t, B_t, C_t in zip(*(x.unbind(1) for x in (dt, dt * u, B, C)), strict=True):
        h = torch.exp(dt_t[..., None] * A) * h + x_t[..., None] * B_t[:, None]
        ys.append((h * C_t[:, None]).sum(-1))
    return (torch.stack(ys, dim=1) + D * u) * F.silu(z)


def scan(**tensors: Tensor) -> Tensor:
    return selective_scan(**tensors, delta_softplus=True, layout="bld", backend="torch")


def tensors_of(shape: tuple[int, int, int, int]) -> dict[str, Tensor]:
    batch, channels, length, states = shape
    case = Case(batch, length, channels, states, layout="bld", left_out=("initial_state",))
    return {name: x.float() for name, x in case.tensors().items()}


def check(shape: tuple[int, int, int, int]) -> None:
    batch, channels, length, states = shape
    case = Case(batch, min(length, CHECKED_TOKENS), channels, states, layout="bld", left_out=("initial_state",))
    expected = outcome(oracle, case.tensors(), **case.options())
    actual = outcome(
        lambda **given: selective_scan(**given, return_last_state=True, backend="torch"),
        {name: x.float() for name, x in case.tensors().items()},
        **case.options(),
    )
    assert_within(actual, expected)


def forward(function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        function(**tensors)


def training(function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
    leaves = {name: x.requires_grad_() for name, x in tensors.items()}
    y = function(**leaves)
    torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))


def medians(jobs: dict[str, Callable[[], None]], turns: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of each job; they take turns, so that a busy minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 1):
        for name, job in jobs.items():
            start = clock()
            job()
            if turn:  # the first warms up
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def compare_with_loop(turns: int, clock: Callable[[], float]) -> Iterator[str]:
    for shape in SHAPES:
        check(shape)
        tensors, row = tensors_of(shape), [f"{shape!s:24}"]
        for mode in (forward, training):
            ms = medians({f.__name__: partial(mode, f, tensors) for f in (scan, loop)}, turns, clock)
            row.append(f"{mode.__name__} {ms['scan']:9.2f} ms, loop {ms['loop'] / ms['scan']:5.1f} times as long")
        yield "   ".join(row)


def train_with_block(size: int, tensors: dict[str, Tensor]) -> None:
    blocks.CPU_BLOCK = size
    training(scan, tensors)


def compare_blocks(turns: int, clock: Callable[[], float]) -> Iterator[str]:
    chosen = blocks.CPU_BLOCK
    for shape in SHAPES:
        tensors = tensors_of(shape)
        sizes = {f"2^{power}": 2**power for power in (17, 18, 19, 20, 21)}
        ms = medians({name: partial(train_with_block, size, tensors) for name, size in sizes.items()}, turns, clock)
        blocks.CPU_BLOCK = chosen
        base = ms[f"2^{chosen.bit_length() - 1}"]
        yield f"{shape!s:24}" + "   ".join(f"{name}: {value / base:4.2f}" for name, value in ms.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--blocks", action="store_true", help="compare sizes of a block, training, with the chosen one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {arguments.threads} threads, (batch, channels, length, states), float32")
    for line in (compare_blocks if arguments.blocks else compare_with_loop)(arguments.turns, clock):
        print(line, flush=True)


if __name__ == "__main__":
    main()

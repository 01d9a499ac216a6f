"""How a network is compared with a recorded one; the only place that knows the tolerances.

A record holds an input, what float64 computed from it, and how much of the tolerance for outputs float32 needs by
itself (`float32_distance`).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CASES = [
    "umamba_bot_2d_even",
    "umamba_bot_2d_odd",
    "umamba_bot_3d_aniso",
    "umamba_bot_3d_iso",
    "umamba_enc_2d_even",
    "umamba_enc_2d_odd",
    "umamba_enc_3d_aniso",
    "umamba_enc_3d_iso",
    "umamba_gen1_bot_2d",
    "umamba_gen1_bot_3d_aniso",
    "umamba_gen1_enc_2d",
    "umamba_gen1_enc_3d_aniso",
]
FOLDERS = [Path(__file__).parent / "fixtures", Path(__file__).parents[3] / "shared" / "fixtures"]

OUTPUT_RTOL, OUTPUT_ATOL = 1e-4, 1e-5
GRADIENT_RMS, GRADIENT_MAX, GRADIENT_FLOOR = 1e-3, 2e-2, 1e-2
ZERO_GRADIENT = 1e-5
RUNS = 13  # an activation at a kink can change sides between two right runs, and rarely does so in all of them

Record = dict[str, Any]


def load(case: str) -> Record:
    """The record of this name; skips the test where it is not at hand."""
    for folder in FOLDERS:
        if (folder / f"{case}.pt").exists():
            return torch.load(folder / f"{case}.pt", weights_only=True)
    pytest.skip(f"{case}.pt is neither in the repository nor in ../shared/fixtures")


def assert_outputs(actual: list[Tensor], expected: list[Tensor], record: Record) -> None:
    factor = min(3.0, max(1.0, 4 * record["float32_distance"]["output"]))
    assert [y.shape for y in actual] == [y.shape for y in expected]
    for index, (got, want) in enumerate(zip(actual, expected, strict=True)):
        allowed = factor * (OUTPUT_ATOL + OUTPUT_RTOL * want.double().abs())
        part = ((got.detach().double() - want.double()).abs() / allowed).max()
        assert part <= 1, f"output {index} is off by {part:.3g} times the tolerance"


def assert_gradients(network: nn.Module, record: Record) -> None:
    """One of some runs, each with the input moved by a rounding error, must be inside the tolerance."""
    generator = torch.Generator().manual_seed(0)
    x = record["input"]
    worst = []
    for _ in range(RUNS):
        worst.append(max(_gradient_errors(network, x, record)))
        if worst[-1][0] <= 1:
            return
        x = record["input"] * (1 + 2e-7 * torch.randn(record["input"].shape, generator=generator))
    part, name = min(worst)
    raise AssertionError(f"gradient of {name} is off by {part:.3g} times the tolerance")


def _gradient_errors(network: nn.Module, x: Tensor, record: Record) -> list[tuple[float, str]]:
    """Parts of the tolerance that the gradients use, with the names of the parameters."""
    network.zero_grad(set_to_none=True)
    outputs = network(x)
    sum((y * w).mean() for y, w in zip(outputs, record["grad_weights"], strict=True)).backward()
    actual = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert actual.keys() == record["grads"].keys()

    zeros = set(record["zero_grads"])
    sizes = {name: _rms(value) for name, value in record["grads"].items()}
    median = sorted(size for name, size in sizes.items() if name not in zeros)[(len(sizes) - len(zeros)) // 2]
    errors = []
    for name, want in record["grads"].items():
        got = torch.zeros_like(want) if actual[name] is None and name in zeros else actual[name]
        assert got is not None, f"{name} has no gradient"
        difference = got.double() - want.double()
        if name in zeros:
            part = _rms(difference) / (ZERO_GRADIENT * max(sizes.values()))
        else:
            scale = sizes[name] + GRADIENT_FLOOR * median
            part = max(_rms(difference) / GRADIENT_RMS, difference.abs().max().item() / GRADIENT_MAX) / scale
        errors.append((part if part == part else float("inf"), name))
    return errors


def _rms(value: Tensor) -> float:
    return value.double().square().mean().sqrt().item()

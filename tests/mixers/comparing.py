"""How a mixer is held to an oracle."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from umamba_seg.mixers import create
from umamba_seg.mixers.mixer import Mixer

BUDGET = 2e-5  # float32 against float64: largest error of a tensor over its largest value


def make_mixer(name: str, channels: int, dims: int, seed: int = 0, **options: Any) -> Mixer:
    """A mixer away from its initial values: ones, zeros and equal rows hide errors."""
    torch.manual_seed(seed)
    mixer = create(name, channels, spatial_dims=dims, **options)
    assert mixer is not None
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def make_map(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_matches(mixer: Mixer, x: Tensor, oracle: Callable[[Tensor, dict[str, Tensor]], Tensor]) -> None:
    """The output and the gradients of the input and of every parameter are those of the oracle in float64."""
    single = {"x": x.detach().requires_grad_(), **dict(mixer.named_parameters())}
    double = {name: value.detach().double().requires_grad_() for name, value in single.items()}
    actual = _outcome(mixer(single["x"]), single)
    expected = _outcome(oracle(double["x"], {name: double[name] for name in double if name != "x"}), double)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        scale = value.abs().max().clamp_min(1e-3)
        error = (actual[name].double() - value).abs().max() / scale
        assert error < BUDGET, f"{name} is off by {error:.1e} of its largest value"


def _outcome(y: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)  # a plain sum hides errors of sign and order
    gradients = torch.autograd.grad((y * weights).sum(), list(leaves.values()))
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}

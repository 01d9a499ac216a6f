"""Sharpness-aware minimisation against what was recorded, and what it must leave untouched."""

import pytest
import torch
from torch import nn

from tests.helpers import SHARED
from umamba_seg.training.sharpness import SharpnessAware, uphill

RECORDED = SHARED / "fixtures" / "sam.pt"


def parameters_with_gradients(gradient: float = 1.0) -> list[nn.Parameter]:
    found = [nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(i))) for i in range(2)]
    for parameter in found:
        parameter.grad = torch.full_like(parameter, gradient)
    return found


def test_uphill_is_a_step_of_length_rho_along_the_gradient_and_then_back_to_the_bits():
    parameters = parameters_with_gradients(4.0)
    before = [parameter.detach().clone() for parameter in parameters]

    with uphill(parameters, rho=0.1) as is_uphill:
        moved = torch.cat([(now - old).flatten() for now, old in zip(parameters, before, strict=True)])
        assert is_uphill
        assert all(parameter.grad is None for parameter in parameters)

    torch.testing.assert_close(moved, torch.full((6,), 0.1 / 6**0.5))
    assert all(torch.equal(now, old) for now, old in zip(parameters, before, strict=True))


@pytest.mark.parametrize("gradient", [0.0, float("inf"), float("nan")])
def test_without_a_direction_nothing_moves_and_gradients_stay(gradient):
    parameters = parameters_with_gradients(gradient)
    before = [parameter.detach().clone() for parameter in parameters]

    with uphill(parameters) as is_uphill:
        assert not is_uphill
        assert all(torch.equal(now, old) for now, old in zip(parameters, before, strict=True))

    assert all(parameter.grad is not None for parameter in parameters)


def test_a_fault_uphill_still_leads_back():
    parameters = parameters_with_gradients()
    before = [parameter.detach().clone() for parameter in parameters]

    with pytest.raises(ZeroDivisionError), uphill(parameters):
        raise ZeroDivisionError

    assert all(torch.equal(now, old) for now, old in zip(parameters, before, strict=True))


@pytest.mark.skipif(not RECORDED.is_file(), reason="the recordings are not here")
def test_steps_are_as_recorded():
    for row in torch.load(RECORDED, weights_only=False)["rows"]:
        w, b, s = (nn.Parameter(x.clone()) for x in row["start"])
        groups = [
            {"params": [w, b], "lr": row["lr"], "weight_decay": row["weight_decay"][0]},
            {"params": [s], "lr": row["lr"], "weight_decay": row["weight_decay"][2]},
        ]
        options = {"momentum": row["momentum"], "nesterov": row["nesterov"]}
        steps = SharpnessAware(groups, torch.optim.SGD, rho=row["rho"], adaptive=row["adaptive"], **options)
        for recorded in row["trace"]:
            for name, step in (("perturbed", steps.first_step), ("params", steps.second_step)):
                error = (torch.tanh(row["x"] @ w + b) - row["y"]).square().mean()
                (s[0] ** 2 * error + torch.log(1 + s[1] ** 2)).backward()
                if name == "params":
                    nn.utils.clip_grad_norm_([w, b], row["clip"])
                step()
                for actual, expected in zip((w, b, s), recorded[name], strict=True):
                    torch.testing.assert_close(actual.detach(), expected, rtol=1e-4, atol=1e-6)

"""The comparison with records fails when it should."""

import copy

import pytest
import torch
from torch import nn

from tests.networks.recorded import assert_gradients, assert_outputs


class TwoOutputs(nn.Module):
    """A toy with a bias whose gradient vanishes, as biases ahead of an instance norm do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4)
        self.heads = nn.ModuleList([nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1, stride=2)])

    def forward(self, x):
        x = torch.tanh(self.norm(self.body(x)))
        return [head(x) for head in self.heads]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TwoOutputs()


@pytest.fixture
def record(network):
    double = copy.deepcopy(network).double()
    x = torch.randn(2, 1, 6, 6)
    outputs = double(x.double())
    weights = [torch.randn_like(y) for y in outputs]
    sum((y * w).mean() for y, w in zip(outputs, weights, strict=True)).backward()
    grads = {name: parameter.grad.float() for name, parameter in double.named_parameters()}
    grads["body.bias"].zero_()
    return {
        "input": x,
        "output": [y.detach().float() for y in outputs],
        "grad_weights": [w.float() for w in weights],
        "grads": grads,
        "zero_grads": ["body.bias"],
        "float32_distance": {"output": 0.01},
    }


def test_a_right_answer_passes(network, record):
    assert_outputs(network(record["input"]), record["output"], record)
    assert_gradients(network, record)


@pytest.mark.parametrize("index", [0, 1])
def test_a_wrong_output_fails(network, record, index):
    record["output"][index][-1, -1, -1, -1] += 3e-4

    with pytest.raises(AssertionError, match=f"output {index} is off"):
        assert_outputs(network(record["input"]), record["output"], record)


def test_an_output_too_many_fails(network, record):
    with pytest.raises(AssertionError):
        assert_outputs(network(record["input"]), record["output"][:1], record)


def test_an_output_that_is_not_a_number_fails(network, record):
    outputs = [y * float("nan") for y in network(record["input"])]

    with pytest.raises(AssertionError):
        assert_outputs(outputs, record["output"], record)


@pytest.mark.parametrize("name", ["body.weight", "heads.0.weight", "heads.1.bias"])
def test_a_wrong_gradient_fails(network, record, name):
    record["grads"][name] *= 1.003

    with pytest.raises(AssertionError, match=f"gradient of {name} is off"):
        assert_gradients(network, record)


def test_one_wrong_element_of_a_gradient_fails(network, record):
    record["grads"]["body.weight"][0, 0, 0, 0] *= -1

    with pytest.raises(AssertionError, match=r"gradient of body.weight is off"):
        assert_gradients(network, record)


def test_a_gradient_that_should_vanish_fails(network, record):
    network.body.bias.register_hook(lambda grad: grad + 1e-3)

    with pytest.raises(AssertionError, match=r"gradient of body.bias is off"):
        assert_gradients(network, record)


def test_a_parameter_without_gradient_fails(network, record):
    network.heads[1].weight.requires_grad_(False)

    with pytest.raises(AssertionError, match=r"heads.1.weight has no gradient"):
        assert_gradients(network, record)

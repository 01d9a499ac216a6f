"""The arithmetic that is asked for is the one that is used, and `auto` measures."""

import pytest
import torch
from torch import nn

from umamba_seg.errors import UsageError
from umamba_seg.training.precision import CLOSE, WORTHWHILE, Comparison, check, compare_precisions, computing_in


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_convolutions_of_a_cpu_compute_in_it(precision, dtype):
    with computing_in(precision, "cpu"):
        assert nn.Conv1d(1, 1, 1)(torch.ones(1, 1, 3)).dtype == dtype
    assert nn.Conv1d(1, 1, 1)(torch.ones(1, 1, 3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_hosts_own_autocast_means_it(precision, dtype):
    """On CUDA the host opens autocast without a type; seen here on the type it would take."""
    before = torch.get_autocast_dtype("cuda")
    with computing_in(precision, "cuda"):
        assert torch.get_autocast_dtype("cuda") == dtype
    assert torch.get_autocast_dtype("cuda") == before


def test_what_is_none_of_the_names_is_refused():
    with pytest.raises(UsageError, match="fp32, fp16, bf16, auto; got 'half'"):
        check("half", "cpu")


@pytest.mark.parametrize(
    ("speed", "error", "chosen"),
    [(2.0, 0.001, "bf16"), (WORTHWHILE - 0.1, 0.001, "fp32"), (2.0, CLOSE * 1.1, "fp32"), (2.0, float("inf"), "fp32")],
)
def test_16_bits_are_chosen_where_they_pay_and_stay_close(speed, error, chosen):
    found = Comparison("bf16", speed, error)

    assert found.chosen == chosen
    assert found.sentence().endswith(chosen)


def test_measuring_leaves_weights_gradients_and_random_numbers_alone():
    network, images = nn.Conv2d(1, 2, 3), torch.randn(1, 1, 8, 8)
    before, weight = torch.get_rng_state(), network.weight.detach().clone()

    found = compare_precisions(network, images)

    assert 0 < found.error < CLOSE
    assert found.speed > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(network.weight, weight)
    assert network.weight.grad is None

import pytest
import torch

from tests.kernels.closeness import assert_within
from tests.kernels.scan_cases import covering

RIGHT = torch.linspace(-3, 3, 1001, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_rounds_to_the_right_answer_is_within(dtype):
    assert_within({"y": RIGHT.to(dtype)}, {"y": RIGHT})


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        (RIGHT * (1 + 2e-14), torch.float64),
        (RIGHT * (1 + 2e-5), torch.float32),
        (RIGHT * (1 + 1e-3), torch.float16),
        (RIGHT * (1 + 1e-2), torch.bfloat16),
        (-RIGHT, torch.float32),
        (RIGHT.flip(0), torch.float32),
        (torch.where(RIGHT == 3, torch.nan, RIGHT), torch.float32),
        (torch.where(RIGHT == 3, torch.inf, RIGHT), torch.bfloat16),
        (RIGHT[:-1], torch.float32),
    ],
)
def test_a_wrong_answer_is_not_within(wrong, dtype):
    with pytest.raises(AssertionError, match="y:"):
        assert_within({"y": wrong.to(dtype)}, {"y": RIGHT})


def test_a_missing_gradient_is_not_within():
    with pytest.raises(AssertionError, match="expected"):
        assert_within({"y": RIGHT}, {"y": RIGHT, "du": RIGHT})


def test_a_covering_meets_every_pair_that_is_allowed():
    axes = {"a": (1, 2, 3), "b": (1, 2, 3, 4), "c": (1, 10)}

    choices = list(covering(keep=lambda a, b, c: a * b * c < 100, **axes))

    for one, other in [("a", "b"), ("a", "c"), ("b", "c")]:
        met = {(choice[one], choice[other]) for choice in choices}
        assert met == {(x, y) for x in axes[one] for y in axes[other] if x * y < 100}
    assert len(choices) < 3 * 4 * 2

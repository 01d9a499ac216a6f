"""UU-Mamba's loss against a plain transcription in float64, and against what was recorded of the released code."""

import pytest
import torch
from torch import Tensor

from tests.helpers import SHARED
from umamba_seg.training.uncertainty_loss import UncertaintyLoss, published_loss

RECORDED = SHARED / "fixtures" / "uu_loss.pt"


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=dtype)
    return logits, torch.randint(3, (2, 1, 4, 5, 6), generator=generator).to(dtype)


def plain_terms(logits: Tensor, target: Tensor, *, is_softmaxed_twice: bool) -> list[Tensor]:
    """Batch Dice, cross-entropy and focal loss, voxel by voxel and class by class."""
    logits, labels = logits.double(), target[:, 0].long()
    classes = logits.shape[1]
    p = logits.softmax(1)
    dice = []
    for c in range(1, classes):
        is_c = (labels == c).double()
        dice.append((2 * (p[:, c] * is_c).sum() + 1e-5) / (p[:, c].sum() + is_c.sum() + 1e-5))
    entropy = -torch.stack([p[:, c].log() * (labels == c) for c in range(classes)]).sum(0).mean()
    q = p.softmax(1) if is_softmaxed_twice else p
    weighed = sum(((labels == c).double().clamp(1e-5 / (classes - 1), 1 - 1e-5)) * q[:, c] for c in range(classes))
    weighed = weighed + 1e-5
    return [-torch.stack(dice).mean(), entropy, (-0.5 * (1 - weighed) ** 2 * weighed.log()).mean()]


@pytest.mark.parametrize("uncertainty", ["published", "learned"])
def test_the_terms_are_those_of_the_formula(uncertainty):
    logits, target = example()
    loss = UncertaintyLoss(batch_dice=True, uncertainty=uncertainty)

    expected = plain_terms(logits, target, is_softmaxed_twice=uncertainty == "published")

    torch.testing.assert_close(loss.terms(logits, target).double(), torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not RECORDED.is_file(), reason="the recordings are not here")
def test_the_published_loss_is_as_recorded():
    for row in torch.load(RECORDED, weights_only=False)["rows"]:
        logits, theta = row["logits"].requires_grad_(), torch.tensor(row["theta"], requires_grad=True)
        total, parts = published_loss(logits, row["target"], theta, row["batch_dice"])
        total.backward()
        torch.testing.assert_close(total.item(), row["total"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(theta.grad, torch.as_tensor(row["grad_theta"]), rtol=1e-4, atol=1e-6)
        scale = row["grad_logits"].abs().max().item()
        torch.testing.assert_close(logits.grad, row["grad_logits"], rtol=1e-4, atol=1e-4 * scale)
        for name, value in parts.items():
            torch.testing.assert_close(value.item(), row[name], rtol=1e-4, atol=1e-6)


def test_the_published_module_is_the_published_function_at_its_weights():
    logits, target = example()

    expected, _ = published_loss(logits, target, torch.ones(3), True)

    torch.testing.assert_close(UncertaintyLoss(batch_dice=True, uncertainty="published")(logits, target), expected)


def test_learned_weights_learn_and_the_loss_stays_above_zero():
    """The published sum falls below any bound when its weights are trained on a prediction that is right."""
    logits, target = example()
    logits = torch.nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1) * 20.0
    loss = UncertaintyLoss(batch_dice=True)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)

    for _ in range(200):
        optimizer.zero_grad()
        value = loss(logits, target)
        value.backward()
        optimizer.step()

    assert 0 < value.item() < 0.2
    assert (loss.log_theta_squared < -1).all()


def test_ignored_voxels_change_nothing():
    logits, target = example()
    spoilt = logits.clone()
    target[:, :, :2] = 3
    spoilt[:, :, :2] = 50 * torch.randn_like(spoilt[:, :, :2])
    loss = UncertaintyLoss(batch_dice=True, ignore_label=3)

    torch.testing.assert_close(loss.terms(spoilt, target), loss.terms(logits, target))


def test_the_loss_computes_in_float32_under_autocast():
    logits, target = example()
    loss = UncertaintyLoss(batch_dice=True)

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, target)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits, target))

"""UU-Mamba's loss: three terms weighed by uncertainties.

As published, L = Σ_i [L_i / (2 θ_i²) + ln(1 + θ_i²)] over soft Dice (negative, in [-1, 0]), cross-entropy and focal
loss. Its θ were never trained, since the loss in use was made after the optimizer; nor could they have been: with a
negative term, L has no lower bound as θ goes to 0. The repaired one, `learned`, adds 1 to the Dice term and holds
s_i = ln θ_i², so that θ stays positive and L ≥ 0; and its focal loss takes the softmax once.
"""

from typing import Literal

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn
from torch.nn import functional as F

Uncertainty = Literal["published", "learned"]
FOCAL_ALPHA, FOCAL_EPS = 0.5, 1e-5  # its exponent is 2
SMOOTH = 1e-5


class UncertaintyLoss(nn.Module):
    """Dice, cross-entropy and focal loss of logits (b, c, *space) for class numbers (b, 1, *space).

    Args:
        batch_dice: Whether Dice sums over the batch before it divides.
        ignore_label: Voxels that count for nothing; None for none.
        uncertainty: `published`, with constant weights, or `learned`.
    """

    def __init__(
        self,
        *,
        batch_dice: bool,
        ignore_label: int | None = None,
        uncertainty: Uncertainty = "learned",
    ) -> None:
        super().__init__()
        self.uncertainty, self.ignore_label = uncertainty, ignore_label
        self.dice = MemoryEfficientSoftDiceLoss(
            apply_nonlin=softmax_helper_dim1, batch_dice=batch_dice, do_bg=False, smooth=SMOOTH, ddp=False
        )
        start = torch.zeros(3)
        self.log_theta_squared = nn.Parameter(start) if uncertainty == "learned" else start  # θ = 1

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The weighted sum."""
        terms = self.terms(logits, target)
        if self.uncertainty == "learned":
            terms = torch.stack([terms[0] + 1, terms[1], terms[2]])
        return weighted_sum(terms, self.log_theta_squared.to(terms.device))

    def terms(self, logits: Tensor, target: Tensor) -> Tensor:
        """Dice, cross-entropy and focal loss, (3,)."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            labels, counts = target[:, 0].long(), None
            if self.ignore_label is not None:
                counts = target != self.ignore_label
                labels = labels.where(counts[:, 0], 0)
            dice = self.dice(logits, labels[:, None], loss_mask=counts)
            entropy = F.cross_entropy(logits, labels, reduction="none")
            focal = focal_loss(logits, labels, is_softmaxed_twice=self.uncertainty == "published")
            if counts is None:
                return torch.stack([dice, entropy.mean(), focal.mean()])
            share = counts[:, 0].sum().clamp(min=1)
            return torch.stack([dice, (entropy * counts[:, 0]).sum() / share, (focal * counts[:, 0]).sum() / share])


def weighted_sum(terms: Tensor, log_theta_squared: Tensor) -> Tensor:
    """Σ_i [L_i / (2 θ_i²) + ln(1 + θ_i²)]."""
    return (terms * (-log_theta_squared).exp() / 2 + F.softplus(log_theta_squared)).sum()


def focal_loss(logits: Tensor, labels: Tensor, *, is_softmaxed_twice: bool) -> Tensor:
    """-α (1 - p)² ln p of every voxel, p the probability of its class, smoothed by ε.

    The published code takes the softmax of a softmax; then p stays below e / (c - 1 + e).
    """
    classes = logits.shape[1]
    probability = logits.softmax(1)
    if is_softmaxed_twice:
        probability = probability.softmax(1)
    low, high = FOCAL_EPS / (classes - 1), 1 - FOCAL_EPS
    own = probability.gather(1, labels[:, None])[:, 0]
    p = (high - low) * own + low * probability.sum(1) + FOCAL_EPS  # one-hot, clamped to [low, high], times probability
    return -FOCAL_ALPHA * (1 - p).square() * p.log()


def published_loss(logits: Tensor, target: Tensor, theta: Tensor, batch_dice: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The published loss as a function of θ, and its terms by name."""
    terms = UncertaintyLoss(batch_dice=batch_dice, uncertainty="published").terms(logits, target)
    total = (terms / (2 * theta.square()) + torch.log1p(theta.square())).sum()
    return total, dict(zip(("dice", "ce", "focal"), terms, strict=True))

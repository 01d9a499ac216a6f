"""No update with what is not finite: it is skipped and counted, and many in a row end the training with advice."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from umamba_seg.errors import ModelError

Step = Callable[[dict[str, Any]], dict[str, Any]]
MOST_IN_A_ROW = 25  # more than a gradient scaler needs to come down from 2**16


class GuardedUpdates(nnUNetTrainer):
    """A trainer whose optimizer makes no step with gradients that are not finite.

    The check sits in front of the optimizer's step, so it serves every trainer. Without gradients a step changes
    neither weights nor momentum. Under DDP gradients are the same everywhere, so all processes skip alike. A gradient
    scaler skips by itself; those are counted apart, since a few at the beginning are how it finds its scale.

    Attributes:
        non_finite: Updates that were skipped here so far.
        skipped_by_scaler: Updates that the gradient scaler skipped.
    """

    grad_scaler: torch.amp.GradScaler | None
    most_in_a_row: ClassVar[int] = MOST_IN_A_ROW
    non_finite: int = 0
    skipped_by_scaler: int = 0
    _in_a_row: int = 0
    _has_skipped: bool = False
    _is_counting: bool = False

    def initialize(self) -> None:
        """As the host's, then watch the optimizer."""
        super().initialize()
        self.optimizer.register_step_pre_hook(self._drop_what_is_not_finite)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the trainer's, with a count of what was skipped."""
        return self.guarded(super().train_step, batch)

    def guarded(self, step: Step, batch: dict[str, Any]) -> dict[str, Any]:
        """A step, with a count of what was skipped in it; a guarded step inside another counts once."""
        if self._is_counting:
            return step(batch)
        self._is_counting, self._has_skipped = True, False
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 0.0
        try:
            result = step(batch)
        finally:
            self._is_counting = False
        if self.grad_scaler is not None and self.grad_scaler.get_scale() < scale:
            self.skipped_by_scaler += 1
            self._has_skipped = True
        self._in_a_row = self._in_a_row + 1 if self._has_skipped else 0
        if self._in_a_row >= self.most_in_a_row:
            raise self._diverged()
        return result

    def _drop_what_is_not_finite(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients or torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            return
        for parameter in parameters:
            parameter.grad = None
        self.non_finite += 1
        self._has_skipped = True
        self.print_to_log_file(f"Gradients are not finite: update skipped ({self.non_finite} so far)")

    def _diverged(self) -> ModelError:
        how = [
            "--precision fp32, if it is not",
            "look at the data: umamba check finds images with NaN or extreme values",
            "the weights are as before these updates; the last checkpoint is older than that",
        ]
        what = f"gradients were not finite {self._in_a_row} times in a row"
        return ModelError(what, where=f"epoch {self.current_epoch + 1}", how=how, code="diverged")

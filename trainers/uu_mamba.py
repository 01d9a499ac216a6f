"""UU-Mamba: U-Mamba's first generation with a loss weighed by uncertainties and sharpness-aware minimisation."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor, distributed, nn

from umamba_seg.trainers.portable import PortableTrainer
from umamba_seg.training.checkpoints import PROVENANCE, read_provenance
from umamba_seg.training.sharpness import RHO, uphill
from umamba_seg.training.uncertainty_loss import Uncertainty, UncertaintyLoss

LOSS_STATE = "loss_state"
MOST_NORM = 12.0


class nnUNetTrainerUUMamba(PortableTrainer):
    """Two passes for each update: one to climb, one for the gradient there. 250 epochs, as published.

    The first pass is synchronised between processes, so that all climb alike. The repaired loss is the default;
    `nnUNetTrainerUUMambaPublished` keeps the released one.
    """

    network_name = "umamba_gen1_enc"
    uncertainty: ClassVar[Uncertainty] = "learned"
    rho: ClassVar[float] = RHO

    def set_recipe(self) -> None:
        """As many epochs as were published."""
        self.num_epochs = 250

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """The host's optimizer and schedule, and the weights of the loss in a group of their own, without decay."""
        self.uncertainty_loss = self._new_uncertainty_loss()  # before the optimizer, so that it trains what is used
        groups: list[dict[str, Any]] = [{"params": list(self.network.parameters())}]
        if own := list(self.uncertainty_loss.parameters()):
            groups.append({"params": own, "weight_decay": 0.0})
        optimizer = torch.optim.SGD(
            groups, self.initial_lr, weight_decay=self.weight_decay, momentum=0.99, nesterov=True
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _new_uncertainty_loss(self) -> UncertaintyLoss:
        loss = UncertaintyLoss(
            batch_dice=self.configuration_manager.batch_dice,
            ignore_label=self.label_manager.ignore_label,
            uncertainty=self.uncertainty,
        )
        return loss.to(self.device)

    def _build_loss(self) -> nn.Module:
        """The loss the optimizer knows, for every scale of deep supervision; with regions, the host's own."""
        if self.label_manager.has_regions:
            host_loss: nn.Module = super()._build_loss()
            return host_loss
        self.uncertainty_loss.dice.ddp = self.is_ddp
        if not self.enable_deep_supervision:
            return self.uncertainty_loss
        weights = [1 / 2**i for i in range(len(self._get_deep_supervision_scales()))]
        if len(weights) > 1:
            weights[-1] = 1e-6 if self.is_ddp and not self._do_i_compile() else 0.0
        return DeepSupervisionWrapper(self.uncertainty_loss, [weight / sum(weights) for weight in weights])

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Gradient, climb, gradient there, back, update. Told is the loss uphill."""
        return self.guarded(self._sharpness_aware_step, batch)

    def _sharpness_aware_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        data, target = _on(self.device, batch["data"]), _on(self.device, batch["target"])
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(data, target)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        with uphill(parameters, rho=self.rho) as is_uphill:
            if is_uphill:
                loss = self._backward(data, target)
        self._update()
        return {"loss": loss.detach().cpu().numpy()}

    def _backward(self, data: Tensor, target: Any) -> Tensor:
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():  # as the host's step
            loss: Tensor = self.loss(self.network(data), target)
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
        return loss

    def _update(self) -> None:
        """Clip network and loss, each by itself, and step; a scaler skips what has overflowed in either pass."""
        if self.is_ddp:  # DDP averages what belongs to the network
            for gradient in (x.grad for x in self.uncertainty_loss.parameters() if x.grad is not None):
                distributed.all_reduce(gradient, op=distributed.ReduceOp.SUM)
                gradient /= distributed.get_world_size()
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], MOST_NORM)
        if self.grad_scaler is None:
            self.optimizer.step()
            return
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def checkpoint(self) -> dict[str, Any]:
        """With the weights of the loss."""
        content = super().checkpoint()
        content[PROVENANCE][LOSS_STATE] = self.uncertainty_loss.state_dict()
        content[PROVENANCE]["uncertainty"] = self.uncertainty
        return content

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """With the weights of the loss."""
        super().load_checkpoint(filename_or_checkpoint)
        if state := read_provenance(filename_or_checkpoint).get(LOSS_STATE):
            self.uncertainty_loss.load_state_dict(state)


class nnUNetTrainerUUMambaPublished(nnUNetTrainerUUMamba):
    """With the loss as released: constant weights, a focal term that takes the softmax twice."""

    uncertainty = "published"


def _on(device: torch.device, x: Any) -> Any:
    return [one.to(device, non_blocking=True) for one in x] if isinstance(x, list) else x.to(device, non_blocking=True)

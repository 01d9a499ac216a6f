"""LightM-UNet under its own recipe."""

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from umamba_seg.trainers.portable import PortableTrainer
from umamba_seg.training.precision import ChosenPrecision


class nnUNetTrainerLightMUNet(ChosenPrecision, PortableTrainer):
    """Adam instead of SGD, one resolution, float32. Published with 100 epochs; here as many as nnU-Net's."""

    network_name = "lightm_unet"
    precision = "fp32"

    def set_recipe(self) -> None:
        """Adam's rates; one resolution."""
        self.initial_lr, self.weight_decay = 1e-4, 1e-5
        self.enable_deep_supervision = False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """The host's schedule over Adam, whose decay is part of the gradient."""
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

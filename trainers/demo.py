"""A recipe for runs of minutes, in which nnU-Net's own would not have left its first plateau yet."""

from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from umamba_seg.training.checkpoints import PortableCheckpoints


class nnUNetTrainerDemo(PortableCheckpoints):
    """AdamW instead of SGD with momentum 0.99, and no mirroring: left from right is learned at once."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host introspects this signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 3e-3

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """The host's schedule over another optimiser."""
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """The host's augmentation without mirroring, in prediction too."""
        rotation, is_in_plane, patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return rotation, is_in_plane, patch_size, None

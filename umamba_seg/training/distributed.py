"""Training on several processes, on CPUs too and on several machines: nnU-Net's own assumes one machine and CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from umamba_seg.training.processes import local_rank


class DistributedTraining(nnUNetTrainer):
    """A trainer that takes the device it is given, and lets DDP wrap the network for it.

    The host takes the rank among all processes for the number of a GPU, which is right on one machine only.
    """

    is_ddp: bool
    network: nn.Module
    grad_scaler: torch.amp.GradScaler | None

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host introspects this signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            self.device = torch.device("cuda", local_rank()) if device.type == "cuda" else device
            if device.type != "cuda":
                self.grad_scaler = None

    def initialize(self) -> None:
        """As the host's of one process; then DDP over it, and the loss of several."""
        if not self.is_ddp:
            super().initialize()
            return
        with self._as_one_process():
            super().initialize()
        network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network) if self.device.type == "cuda" else self.network
        devices = [self.device.index] if self.device.type == "cuda" else None
        self.network = DistributedDataParallel(network, device_ids=devices)
        self.loss = self._build_loss()

    def _set_batch_size_and_oversample(self) -> None:
        is_ddp, self.is_ddp = self.is_ddp, distributed.is_available() and distributed.is_initialized()
        super()._set_batch_size_and_oversample()
        self.is_ddp = is_ddp

    @contextmanager
    def _as_one_process(self) -> Iterator[None]:
        self.is_ddp = False
        try:
            yield
        finally:
            self.is_ddp = True

    def any_process(self, flag: bool) -> bool:
        """Whether a flag is set in any process; all must ask."""
        if not self.is_ddp:
            return flag
        found = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return bool(found.item())

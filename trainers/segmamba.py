"""SegMamba under nnU-Net's recipe. Its own scripts train with cross-entropy alone; see the page on recipes."""

from umamba_seg.trainers.portable import PortableTrainer


class nnUNetTrainerSegMamba(PortableTrainer):
    """SegMamba, first version."""

    network_name = "segmamba"


class nnUNetTrainerSegMambaV2(PortableTrainer):
    """SegMamba-V2."""

    network_name = "segmamba_v2"

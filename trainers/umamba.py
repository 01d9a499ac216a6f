"""U-Mamba (generation 2) under nnU-Net's own recipe."""

from umamba_seg.trainers.portable import PortableTrainer
from umamba_seg.training.precision import ChosenPrecision


class nnUNetTrainerUMambaBot(PortableTrainer):
    """U-Mamba with one Mamba layer at the bottleneck."""

    network_name = "umamba_bot"


class nnUNetTrainerUMambaEnc(PortableTrainer):
    """U-Mamba with Mamba layers along the encoder."""

    network_name = "umamba_enc"


class nnUNetTrainerUMambaEncNoAMP(ChosenPrecision, nnUNetTrainerUMambaEnc):
    """The same in float32."""

    precision = "fp32"

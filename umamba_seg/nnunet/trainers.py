"""Finding a trainer class by name, as nnU-Net does, with a sentence where there is none."""

from typing import TYPE_CHECKING

from umamba_seg.errors import unknown
from umamba_seg.nnunet import activate

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

OUR_TRAINERS = (
    "nnUNetTrainerUMambaBot",
    "nnUNetTrainerUMambaEnc",
    "nnUNetTrainerUMambaEncNoAMP",
    "nnUNetTrainerSegMamba",
    "nnUNetTrainerSegMambaV2",
    "nnUNetTrainerLightMUNet",
    "nnUNetTrainerUUMamba",
    "nnUNetTrainerUUMambaPublished",
    "nnUNetTrainerDemo",
)


def find_trainer(name: str) -> "type[nnUNetTrainer]":
    """The trainer class of this name: nnU-Net's own, ours, or another's that `nnUNet_extTrainer` leads to."""
    activate()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError as fault:
        if "Could not find requested nnunet trainer" not in str(fault):
            raise
        raise unknown("trainer", name, ["nnUNetTrainer", *OUR_TRAINERS], where="-tr") from fault

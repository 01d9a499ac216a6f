"""Where this package meets nnU-Net's extension points. Importing it needs the standard library only."""

import os
from pathlib import Path

PLUGIN_FOLDER = Path(__file__).parent / "plugin"
TRAINER_VARIABLE = "nnUNet_extTrainer"
REPAIR_OPT_OUT = "UMAMBA_NO_TORCHVISION_REPAIR"
AUTOLOAD_OPT_OUT = "UMAMBA_NO_AUTOLOAD"


def opted_out(variable: str) -> bool:
    """Whether the user switched something off: the variable is set to anything but `0` or nothing."""
    return os.environ.get(variable, "") not in ("", "0")


def activate() -> None:
    """Make this process see our trainers, and survive a torchvision that was built for another torch.

    Call it before anything looks up an nnU-Net trainer. Child processes inherit the variable.
    """
    add_plugin_folder()
    from umamba_seg.nnunet.torchvision_repair import repair

    repair()


def add_plugin_folder() -> None:
    """Append our plugin folder to `nnUNet_extTrainer`, keeping what others put there."""
    present = [entry for entry in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep) if entry.strip()]
    if not any(_is_plugin_folder(entry) for entry in present):
        os.environ[TRAINER_VARIABLE] = os.pathsep.join([*present, str(PLUGIN_FOLDER)])


def _is_plugin_folder(entry: str) -> bool:
    return Path(entry).exists() and Path(entry).samefile(PLUGIN_FOLDER)

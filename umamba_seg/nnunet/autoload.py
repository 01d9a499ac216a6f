"""PyTorch calls this at the end of `import torch` (entry point group `torch.backends`), in every program there is.

So it must cost nothing, change nothing outside nnU-Net's own programs, and never raise: an exception here would make
`import torch` fail for everybody.
"""

import os
import sys
from itertools import pairwise


def activate() -> None:
    """Let stock nnU-Net commands find our trainers and survive a mismatched torchvision; others notice nothing."""
    try:
        from umamba_seg import nnunet

        if runs_nnunet() and not nnunet.opted_out(nnunet.AUTOLOAD_OPT_OUT):
            nnunet.activate()
    except Exception:
        pass


def runs_nnunet() -> bool:
    """Whether this program is one of nnU-Net's: its command, a file below its package, or `python -m nnunetv2…`."""
    program = next(iter(getattr(sys, "argv", [])), "") or ""
    if "nnunet" in os.path.basename(program).lower():
        return True
    if "nnunetv2" in program.replace("\\", "/").split("/")[:-1]:
        return True
    # while `python -m` still resolves the module, argv[0] is only "-m"
    arguments = getattr(sys, "orig_argv", [])
    return any(flag == "-m" and module.split(".")[0] == "nnunetv2" for flag, module in pairwise(arguments))

"""A torchvision built for another torch cannot load its library; then `import torchvision` fails on a missing operator.

nnU-Net looks every trainer but its default one up by importing all of them, one of which needs timm and thereby
torchvision. Nothing there uses the missing operators; only their names must exist while torchvision is imported. So we
declare them, in this process alone. Calling one still fails, with torchvision's own "Couldn't load custom C++ ops".
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from umamba_seg.nnunet import REPAIR_OPT_OUT, opted_out

State = Literal["absent", "healthy", "imported", "broken", "repaired"]

ADVICE = "install torchvision from the same index as torch"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # torch forgets a declaration when its Library object dies


def repair() -> State:
    """Declare the operators a broken torchvision lacks, unless `UMAMBA_NO_TORCHVISION_REPAIR` is set."""
    state = inspect()
    if state != "broken" or opted_out(REPAIR_OPT_OUT):
        return state
    _forget_failed_import()
    from torch.library import Library

    library = Library(
        "torchvision", "FRAGMENT"
    )  # a second DEF of a namespace is an error, and a healthy one brings its own
    library.define("nms" + _SCHEMA)
    library.define("qnms" + _SCHEMA)
    _declared.append(library)
    return "repaired"


def inspect() -> State:
    """What state torchvision is in, without importing it."""
    if _declared:
        return "repaired"
    if hasattr(sys.modules.get("torchvision"), "ops"):  # set at the end of a successful import
        return "imported"
    spec = find_spec("torchvision") if "torchvision" not in sys.modules else sys.modules["torchvision"].__spec__
    if spec is None or spec.origin is None:
        return "absent"
    return "healthy" if all(map(_loads, Path(spec.origin).parent.glob("_C.*"))) else "broken"


def _loads(library: Path) -> bool:
    import torch

    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


def _forget_failed_import() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]

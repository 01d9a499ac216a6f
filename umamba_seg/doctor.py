"""`umamba doctor`: what is installed, what runs where, what is broken and how to mend it."""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

from umamba_seg import __version__, nnunet
from umamba_seg.device import cores, set_import_time_variables
from umamba_seg.errors import UmambaError
from umamba_seg.nnunet import torchvision_repair
from umamba_seg.workspace import locate, make_folder, settings

State = Literal["ok", "repaired", "warning", "broken"]
TESTED_PYTHON = ((3, 11), (3, 13))
TESTED_NNUNET = ("2.8.0", "2.9")
LITTLE_DISK_GB = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All lines, and whether anything is broken."""

    checks: tuple[Check, ...]

    @property
    def is_broken(self) -> bool:
        """Whether something does not work; warnings and what was repaired do."""
        return any(check.state == "broken" for check in self.checks)


def doctor(workspace: Path | None = None, *, warm: bool = False) -> Diagnosis:
    """Look at everything a run depends on. Changes nothing but this process, in which torchvision may be repaired.

    Args:
        workspace: Where the three folders are.
        warm: Whether to compile the CPU kernels first, for this and later processes.
    """
    steps: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _torch,
        _torchvision,
        _kernels,
        lambda: _compiled_kernels(warm),
        _packages,
        _nnunet,
        _trainers,
        _processor,
        _gpu,
        lambda: _folders(workspace),
    )
    return Diagnosis(tuple(check for step in steps for check in step()))


def version_line() -> str:
    """One line with the versions that decide on results; nothing heavy is imported."""
    installed = [f"{name} {_version(name) or 'missing'}" for name in ("nnunetv2", "torch")]
    torch_version = _version("torch") or ""
    cuda = torch_version.partition("+")[2] or "default build"
    return ", ".join(
        [f"umamba {__version__}", *installed, f"torch build {cuda}", f"backend {settings()['backend'].value}"]
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdecimal())


def _python() -> Iterator[Check]:
    lowest, highest = TESTED_PYTHON
    is_tested = lowest <= sys.version_info[:2] <= highest
    remedy = "" if is_tested else f"tested with Python {_dotted(lowest)} to {_dotted(highest)}"
    yield Check("python", "ok" if is_tested else "warning", f"{platform.python_version()} in {sys.prefix}", remedy)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as fault:
        yield Check("torch", "broken", _first_line(fault), "install torch for this machine, see pytorch.org")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Check("torch", "ok", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")


def _torchvision() -> Iterator[Check]:
    """Really import it: a build for another torch is the most common broken installation."""
    state = torchvision_repair.repair()
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        yield Check(
            "torchvision",
            "warning",
            "not installed",
            "pip install torchvision, from the same index as torch; nnU-Net's timm needs it",
        )
        return
    except (ImportError, RuntimeError, OSError) as fault:
        switch = f"; {nnunet.REPAIR_OPT_OUT} forbids the repair" if nnunet.opted_out(nnunet.REPAIR_OPT_OUT) else ""
        yield Check("torchvision", "broken", _first_line(fault) + switch, torchvision_repair.ADVICE)
        return
    if state == "repaired":
        found = f"{_version('torchvision')}: binary does not match torch, repaired for this process"
        yield Check("torchvision", "repaired", found, torchvision_repair.ADVICE)
    else:
        yield Check("torchvision", "ok", _version("torchvision") or "")


def _kernels() -> Iterator[Check]:
    """Which kernel backend each device gets, and why not the others."""
    set_import_time_variables()
    try:
        from umamba_seg.kernels import info

        choices = info()
    except (ImportError, OSError, UmambaError) as fault:
        yield Check("kernels", "broken", _first_line(fault), "mend torch, or UMAMBA_BACKEND")
        return
    for device, choice in choices.items():
        reasons = [f"not {name}: {reason}" for name, reason in choice.why_not.items()]
        found = "; ".join([f"{choice.backend} backend" if choice.backend else "no backend", *reasons])
        is_broken = choice.backend is None and device == "cpu"
        yield Check(f"kernels on {device}", "broken" if is_broken else "ok", found)


def _compiled_kernels(warm: bool) -> Iterator[Check]:
    """Whether the first scan of a process has to wait for a compiler."""
    try:
        from umamba_seg.kernels import info

        if info()["cpu"].backend != "numba":
            return
        from umamba_seg.kernels.numba import warm as kernels
    except (ImportError, OSError, UmambaError):
        return  # told above
    if warm:
        kernels.warm()
    found = kernels.warmth()
    if found.is_warm:
        told = (
            f"compiled in {found.compile_seconds:.1f} s once, loaded in {found.load_seconds:.2f} s, in {found.folder}"
        )
        yield Check("compiled kernels", "ok", told)
    elif warm:
        told = f"{found.folder} cannot be written: each process compiles for some seconds"
        yield Check("compiled kernels", "warning", told, f"set {kernels.FOLDER_VARIABLE} to a folder that can")
    else:
        told = "not yet: the first scan takes some seconds more"
        yield Check("compiled kernels", "ok", told, "umamba doctor --warm compiles them now")


def _packages() -> Iterator[Check]:
    for name in ("triton", "numba", "monai"):
        installed = _version(name)
        if installed is None and name == "triton" and platform.system() != "Linux":
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            yield Check(name, "warning", "not installed", f"pip install {name}")
        except (ImportError, RuntimeError, OSError, AttributeError) as fault:
            yield Check(
                name,
                "warning",
                f"{installed} does not import: {_first_line(fault)}",
                f"pip install --force-reinstall {name}",
            )
        else:
            yield Check(name, "ok", installed or "")


def untried_host() -> str | None:
    """What to say of an nnU-Net that this package was never tried with; None of one that it was."""
    installed = _version("nnunetv2")
    lowest, limit = map(_numbers, TESTED_NNUNET)
    if installed is None or lowest <= _numbers(installed) < limit:
        return None
    return f"nnunetv2 {installed} was never tried with this package, which is made for 2.8"


def _nnunet() -> Iterator[Check]:
    installed = _version("nnunetv2")
    remedy = 'pip install "nnunetv2>=2.8,<2.9"'
    if installed is None:
        yield Check("nnunetv2", "broken", "not installed", remedy)
    elif remark := untried_host():
        yield Check("nnunetv2", "warning", remark, remedy)
    else:
        yield Check("nnunetv2", "ok", installed)


def _trainers() -> Iterator[Check]:
    """Whether stock nnU-Net commands will find our trainers, and why not."""
    if nnunet.opted_out(nnunet.AUTOLOAD_OPT_OUT):
        off = nnunet.AUTOLOAD_OPT_OUT
    elif os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        off = "TORCH_DEVICE_BACKEND_AUTOLOAD"
    else:
        off = ""
    registered = any(entry.name == "umamba_seg" for entry in entry_points(group="torch.backends"))
    manual = f'export {nnunet.TRAINER_VARIABLE}="$(umamba nnunet path)"'
    if off:
        yield Check("stock commands", "warning", f"{off} keeps them from finding our trainers", manual)
    elif not registered:
        yield Check(
            "stock commands",
            "warning",
            "the start hook is not registered",
            f"pip install umamba-seg again, or {manual}",
        )
    else:
        yield Check("stock commands", "ok", "find our trainers by themselves")
    variable = os.environ.get(nnunet.TRAINER_VARIABLE)
    try:
        from umamba_seg.nnunet.quiet import quiet
        from umamba_seg.nnunet.trainers import OUR_TRAINERS, find_trainer

        with quiet():
            found = [find_trainer(name).__name__ for name in OUR_TRAINERS]
    except (ImportError, RuntimeError, OSError, UmambaError) as fault:
        yield Check("trainers", "broken", _first_line(fault), "mend what is broken above, then look again")
    else:
        yield Check("trainers", "ok", f"{', '.join(found)}; {nnunet.TRAINER_VARIABLE} is {variable or 'not set'}")


def _processor() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    features = ""
    if "torch" in sys.modules:
        features = ", " + sys.modules["torch"].backends.cpu.get_cpu_capability()
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    found = f"{platform.machine()}{features}, {cores()} cores, {free}"
    yield Check("processor", "ok", found)


def _gpu() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError):
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            found = (
                f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}"
            )
            yield Check(f"gpu {index}", "ok", f"{found}, driver {_driver()}")
    elif shutil.which("nvidia-smi"):
        cure = (
            "install a CUDA build of torch that this driver can run"
            if torch.version.cuda is None
            else "update the driver"
        )
        yield Check(
            "gpu",
            "warning",
            f"there is an NVIDIA driver ({_driver()}), but torch {torch.__version__} sees no GPU",
            cure,
        )
    elif torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple GPU")
    else:
        yield Check("gpu", "ok", "none; everything runs on the CPU")


def _driver() -> str:
    import subprocess

    if not shutil.which("nvidia-smi"):
        return "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.splitlines()[0] if answer.returncode == 0 and answer.stdout else "that does not answer"


def _folders(workspace: Path | None) -> Iterator[Check]:
    try:
        place = locate(workspace)
    except UmambaError as fault:
        yield Check("folders", "broken", str(fault), "mend the settings file")
        return
    for variable, folder in place.folders().items():
        source = place.sources[variable.removeprefix("nnUNet_")]
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        try:
            make_folder(existing, where=variable)
        except UmambaError as fault:
            yield Check(variable, "broken", f"{fault.what} (from {source})", fault.how[0])
            continue
        free = shutil.disk_usage(existing).free / 2**30
        note = "" if folder.exists() else ", not made yet"
        remedy = f"less than {LITTLE_DISK_GB:.0f} GiB: preprocessed data may not fit" if free < LITTLE_DISK_GB else ""
        yield Check(
            variable, "warning" if remedy else "ok", f"{folder} (from {source}{note}), {free:.0f} GiB free", remedy
        )


def _first_line(fault: BaseException) -> str:
    text = str(fault).strip()
    return f"{type(fault).__name__}: {text.splitlines()[0]}" if text else type(fault).__name__

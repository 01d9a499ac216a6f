"""Which device to run on, with how many threads, workers and which kernels."""

import os

from umamba_seg.errors import MachineError, UsageError
from umamba_seg.workspace import settings

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(option: str | None = None) -> str:
    """`cpu`, `cuda` or `mps`: the option or setting, else the best there is. A device asked for is never replaced."""
    import torch

    setting = settings({"device": option})["device"]
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if setting.value == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if here[name])
    if setting.value not in here:
        what = f"the device must be one of {', '.join(DEVICES)}; got {setting.value!r}"
        raise UsageError(
            what, where=setting.source, how=["choose a GPU with CUDA_VISIBLE_DEVICES"], code="unknown-device"
        )
    if not here[setting.value]:
        how = ["`umamba doctor` says what torch sees", "--device cpu runs without a GPU"]
        raise MachineError(
            f"torch finds no {setting.value} device here", where=setting.source, how=how, code="no-device"
        )
    return setting.value


def emulated(precision: str | None, device: str) -> str | None:
    """What a user should know where a processor has no instructions for a 16-bit type; None where it has them.

    Training steps of a small U-Net in bf16 took minutes each on a processor with AVX2 alone, and ten seconds in fp32.
    """
    import torch

    if device != "cpu" or precision not in ("bf16", "fp16"):
        return None
    mkldnn = torch.ops.mkldnn
    has = {"bf16": mkldnn._is_mkldnn_bf16_supported, "fp16": mkldnn._is_mkldnn_fp16_supported}[precision]
    if torch.backends.mkldnn.is_available() and has():
        return None
    return f"this processor has no {precision} and emulates it, many times slower than fp32"


def use_threads(device: str) -> int:
    """Let torch use all cores on a CPU, one beside a GPU, as nnU-Net does; `UMAMBA_NUM_THREADS` decides otherwise."""
    import torch

    setting = settings()["num_threads"]
    if setting.value and not setting.value.isdecimal():
        raise UsageError(f"the number of threads must be a whole number, got {setting.value!r}", where=setting.source)
    threads = int(setting.value or 0) or (cores() if device == "cpu" else 1)
    torch.set_num_threads(threads)
    return threads


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_import_time_variables() -> None:
    """Set what torch, nnU-Net and our kernels read once, when they are imported; variables that are set win.

    Threads that wait for each other must not spin: beside one other busy program, a training step with spinning threads
    took ten times as long (5.0 and 0.5 s on 2 cores).

    nnU-Net would start eight export workers and twelve loaders on any machine, each of which imports torch anew: some
    five seconds and half a gigabyte. So there are no more than cores. The kernel backend is that of the settings.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("nnUNet_def_n_proc", str(min(8, cores())))
    os.environ.setdefault("nnUNet_n_proc_DA", str(min(12, cores())))
    os.environ.setdefault("UMAMBA_BACKEND", settings()["backend"].value)

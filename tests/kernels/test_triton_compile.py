"""The triton kernels as machine code: they fit the registers. Compiled ahead of time, so no GPU is needed.

Run as a script, this compiles what a scan would launch and prints the figures: python test_triton_compile.py 90 lines
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ALL = ("D", "z", "delta_bias", "weights", "initial_state")
# Two channels for each thread of the forward pass, and no option that would be compiled twice.
CASES: dict[str, dict[str, Any]] = {
    "lines": {},
    "two_routes": {"routes": "+x,-x", "given": ALL, "options": {"is_stacked": True}},
    "own": {"options": {"exclusive": "own"}},
    "shift": {"given": ALL, "options": {"exclusive": "shift"}},
    "exact": {"given": ALL, "options": {"exact_gain": True}},
    "table": {"routes": "table", "given": ALL, "table": [[list(range(96))]]},
    "offsets": {"routes": "+x/@", "given": ALL, "offsets": [[0, 40, 96]]},
    "constant": {"B": 0, "C": 0, "given": ALL},
    "chunks": {"space": (1024,), "given": ALL},
    "few_states": {"states": 8},
    "many_states": {"states": 64},
    "bare": {"given": (), "options": {"delta_softplus": False}},
}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "conv": {"route": "+x"},
    "conv_raster": {"route": "-x-zy", "space": (8, 8, 8)},
    "conv_line": {"route": "zyx", "space": (1, 1, 5), "batch": 1, "reset": 1},
    "conv_table": {"route": "padded"},
    "conv_offsets": {"route": "-x", "reset": (0, 40, 96)},
    "conv_half": {"route": "+x", "dtype": "bfloat16"},
}
HALF = ("u", "delta", "B", "C", "z")
MOST_STATES = 16  # of a launch
MAY_SPILL = ((80, "two_routes"), (80, "table"), (90, "exact"))  # bytes of a few numbers, with every option at once


def _nvidia(tool: str) -> Path:
    spec = find_spec("triton")
    return Path(spec.origin if spec and spec.origin else "").parent / "backends" / "nvidia" / "bin" / tool


pytestmark = pytest.mark.skipif(
    not all(_nvidia(tool).exists() for tool in ("ptxas", "cuobjdump")), reason="triton or its NVIDIA tools are missing"
)


def figures(arch: int, case: str) -> dict[str, dict[str, int]]:
    """Registers, spills, shuffles and barriers of all kernels of a case, by name; in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, __file__, str(arch), case]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


def check(arch: int, case: str) -> None:
    spills = 64 if (arch, case) in MAY_SPILL else 0
    for name, figure in figures(arch, case).items():
        most = 255 if "scan_backward" in name else 128
        assert figure["spills"] <= (spills if "scan_backward" in name else 0), f"{name} spills: {figure}"
        assert figure["registers"] <= most, f"{name}: {figure}"
        assert figure["barriers"] == 0, f"{name} has threads that wait for each other: {figure}"
        handed_round = 2 * MOST_STATES  # B and C of a token, which one lane each has loaded
        assert "backward" in name or figure["shuffles"] <= handed_round, f"{name} exchanges between lanes: {figure}"


def check_convolution(arch: int, case: str) -> None:
    found = figures(arch, case)
    assert len(found) == 3, "forward, the gradients of weights, the gradient of u"
    for (name, figure), most in zip(found.items(), (96, 192, 96), strict=True):
        assert figure["spills"] == 0, f"{name} spills: {figure}"
        assert figure["registers"] <= most, f"{name}: {figure}"


def test_forward_and_backward_with_16_states_fit_the_registers_of_sm_90() -> None:
    check(90, "lines")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("case", [*CASES, "half"])
def test_all_kernels_fit_the_registers(arch: int, case: str) -> None:
    check(arch, case)


def test_the_convolution_fits_the_registers_of_sm_90() -> None:
    check_convolution(90, "conv")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_every_convolution_fits_the_registers(arch: int, case: str) -> None:
    check_convolution(arch, case)


@pytest.mark.slow
def test_32_sums_over_lanes_take_31_exchanges() -> None:
    found = figures(90, "lines")["scan_backward"]

    sums = 31 * 2  # for two tokens, 16 states of dB and of dC each
    handed_round = 16 + 2 * 32  # B on the way ahead; B and C of two tokens on the way back
    assert found["shuffles"] == sums + handed_round


def _compile(arch: int, case: str) -> dict[str, dict[str, int]]:
    """Walk through the host side with a driver that has no device, and keep what it compiles."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class NoDevice:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", arch, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    launch, found = JITFunction.run, {}

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = launch(kernel, *arguments, grid=grid, warmup=True, **options)
        number = sum(name.split(" ")[0] == kernel.__name__ for name in found)
        found[kernel.__name__ + (f" {number + 1}" if number else "")] = _usage(compiled.asm["cubin"])
        return compiled

    driver.set_active(NoDevice())
    JITFunction.run = compile_only
    (_convolve if case in CONVOLUTIONS else _scan)(case)
    return found


def _scan(case: str) -> None:
    import torch

    from tests.kernels.test_triton_scan import Case
    from umamba_seg.kernels.triton import scan as backend

    shapes = {"space": (96,), "channels": 96, "states": 16} | CASES.get(case, {})
    dtypes = dict.fromkeys(HALF, torch.bfloat16) if case == "half" else {}
    scan = Case(**shapes, dtypes=dtypes).scan()
    y, last, checkpoints = backend.forward(scan)
    backend.backward(scan, checkpoints, y, last)


def _convolve(case: str) -> None:
    import torch

    from tests.kernels.test_conv import ConvCase
    from umamba_seg.kernels.triton import conv as backend

    told = {"space": (96,), "channels": 96} | CONVOLUTIONS[case]
    dtype = getattr(torch, told.pop("dtype", "float32"))
    conv = ConvCase(**told).conv(dtype)
    backend.backward(conv, backend.forward(conv))


def _usage(cubin: bytes) -> dict[str, int]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        told, code = (
            subprocess.run([_nvidia("cuobjdump"), option, file], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", told)}
    counts = {name: len(re.findall(rf"\b{name}\b", code)) for name in ("SHFL", "BAR", "STL", "LDL")}
    return {
        "registers": usage["REG"],
        "spills": max(usage["STACK"], counts["STL"] + counts["LDL"]),
        "shuffles": counts["SHFL"],
        "barriers": counts["BAR"],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(json.dumps(_compile(int(sys.argv[1]), sys.argv[2])))

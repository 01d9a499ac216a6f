"""Which backend runs a scan, and how that is told."""

import os
import re
import subprocess
import sys

import pytest
import torch

from umamba_seg.errors import BackendUnavailableError, MachineError
from umamba_seg.kernels import Choice, dispatch, info, selective_scan, use, why_not
from umamba_seg.kernels.dispatch import Backend, choose, requested

U = torch.empty(1, 1, 1)
NAMES = [backend.name for backend in dispatch.BACKENDS]
ABSENT = Backend("absent", lambda device, dtype: "it is not installed")
PRESENT = Backend("present", lambda device, dtype: None)
LATER = Backend("later", lambda device, dtype: None)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BACKENDS", (ABSENT, PRESENT, LATER))


@pytest.mark.usefixtures("three")
def test_auto_takes_the_first_that_can():
    assert choose("auto", U.device) is PRESENT
    assert why_not(U) == {"absent": "it is not installed", "present": None, "later": None}


@pytest.mark.usefixtures("three")
def test_a_name_is_an_order():
    assert choose("later", U.device) is LATER
    with pytest.raises(BackendUnavailableError, match="'absent' cannot run this scan: it is not installed") as caught:
        choose("absent", U.device)
    assert isinstance(caught.value, MachineError)
    assert caught.value.how


@pytest.mark.usefixtures("three")
def test_a_name_nobody_knows_is_refused_with_the_known_ones():
    for refusing in (lambda: choose("tritn", U.device), lambda: use("tritn").__enter__()):
        with pytest.raises(ValueError, match=re.escape("one of 'auto', 'absent', 'present', 'later'; got 'tritn'")):
            refusing()


@pytest.mark.usefixtures("three")
def test_use_decides_for_calls_that_leave_it_open_and_ends():
    with use("later"):
        assert requested("auto") == "later"
        assert requested("present") == "present"
        with use("absent"):
            assert requested("auto") == "absent"
        assert requested("auto") == "later"
    assert requested("auto") == "auto"


@pytest.mark.usefixtures("three")
def test_use_ends_when_the_scan_fails():
    one = torch.ones(1, 1, 1)

    with pytest.raises(BackendUnavailableError), use("absent"):
        selective_scan(one, one, one[0], one, one)

    assert requested("auto") == "auto"


@pytest.mark.usefixtures("three")
def test_info_tells_what_would_run_and_why_not_the_others():
    assert info()["cpu"] == Choice("present", {"absent": "it is not installed"})
    with use("absent"):
        assert info()["cpu"].backend is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device")
def test_info_tells_that_there_is_no_cuda_device():
    assert info()["cuda"] == Choice(None, dict.fromkeys(NAMES, "torch sees no cuda device"))


def test_info_names_a_backend_that_exists_for_cpu_tensors():
    assert info()["cpu"].backend in NAMES


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=120)


def test_importing_the_kernels_loads_no_other_backend():
    program = "import sys, umamba_seg.kernels; print(sorted({'numba', 'triton', 'nnunetv2'} & set(sys.modules)))"

    assert python(program, TORCH_DEVICE_BACKEND_AUTOLOAD="0").stdout == "[]\n"


def test_the_environment_decides_for_a_process():
    program = (
        "import umamba_seg.kernels as kernels; from umamba_seg.kernels.dispatch import requested\n"
        "print(requested('auto'))\n"
        "try: kernels.info()\n"
        "except ValueError as error: print(error)"
    )

    good, bad = (python(program, UMAMBA_BACKEND=name, TORCH_DEVICE_BACKEND_AUTOLOAD="0") for name in ("torch", "fast"))

    assert good.stdout == "torch\n"
    known = ", ".join(repr(name) for name in ("auto", *NAMES))
    assert bad.stdout.startswith(f"fast\nUMAMBA_BACKEND: backend must be one of {known}; got 'fast'")

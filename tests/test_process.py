"""What a program of ours costs, in a program of its own: it changes the whole process."""

import platform
import subprocess
import sys

import pytest


def faults_of(statement: str) -> int:
    """Fresh pages that the system hands out while arrays of 64 MB come and go twenty times."""
    program = f"""
import resource
import numpy as np
{statement}
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its malloc cannot be told")
def test_freed_memory_is_handed_out_again():
    assert faults_of("from umamba_seg.process import keep_freed_memory; keep_freed_memory()") < 10 < faults_of("") / 2


def ended(statement: str) -> str:
    """What a program prints whose objects are looked for rarely."""
    program = f"""
import gc
from umamba_seg.process import collecting_rarely
with collecting_rarely():
    assert gc.isenabled()
    assert gc.get_threshold()[0] > 700
    {statement}
assert not gc.isenabled()
print(gc.get_freeze_count())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_objects_that_came_with_modules_are_not_looked_through_at_the_end():
    assert int(ended("import json")) > 1000


def test_triton_has_nothing_to_report_at_the_end():
    pytest.importorskip("triton")
    assert ended("import triton") == "0\n"

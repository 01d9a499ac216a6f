"""The processor that code is generated for: this one, or the one numba is told of in NUMBA_CPU_NAME."""

import os
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm


@dataclass(frozen=True, slots=True)
class Target:
    """A processor.

    Args:
        cpu: LLVM's name of it.
        features: LLVM's list of what it can do, "+avx2,-avx512f,...".
        lanes: Floats in a vector. Wider ones than the processor has are split by LLVM, and get slow.
        has_scaling: Whether it has AVX-512's instructions that take a float apart and put it together.
    """

    cpu: str
    features: str
    lanes: int
    has_scaling: bool


@cache
def target() -> Target:
    """The target of this process."""
    own = llvm.get_host_cpu_features()
    cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES") or own.flatten()
    is_wide = {"+avx512f", "+avx512dq"} <= set(features.split(","))
    return Target(cpu, features, 16 if is_wide else 8, is_wide)

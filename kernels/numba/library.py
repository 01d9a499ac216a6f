"""The kernels, each loaded or compiled when it is first asked for.

A kernel has the name of the module here that makes it, in a function `source`, and the arguments of that function.
"""

from functools import cache, partial
from importlib import import_module
from typing import Any

from umamba_seg.kernels.numba.compiler import Kernel, load


@cache
def kernel(module: str, *arguments: int) -> Kernel:
    """The kernel of a module, for these arguments."""
    return load(kernel_name(module, *arguments), partial(_source, module, arguments))


def kernel_name(module: str, *arguments: int) -> str:
    """What it is kept as on disk."""
    return "-".join([module, *(str(int(argument)) for argument in arguments)])


def _source(module: str, arguments: tuple[int, ...]) -> Any:
    # it brings numba, which is needed only to compile
    return import_module(f"umamba_seg.kernels.numba.{module}").source(*arguments)

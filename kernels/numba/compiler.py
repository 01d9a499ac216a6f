"""Kernels as machine code: compiled once, kept on disk, loaded without numba.

Numba's own cache would do, were it not that bringing back a kernel takes numba, whose import and registries take longer
than all else. Here the object code is kept, which llvmlite loads within milliseconds.
"""

import ctypes
import gc
import hashlib
import os
import platform
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from platformdirs import user_cache_path

from umamba_seg.kernels.numba.target import target
from umamba_seg.kernels.problem import CHECKPOINT_STEP

Kernel = Callable[[int, int, int], int]  # (frame, item, scratch), addresses all
_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 5)  # ctypes lets other threads run meanwhile
_CHECKSUM, _SECONDS = hashlib.sha256().digest_size, struct.Struct("<d")
FOLDER_VARIABLE = "UMAMBA_KERNEL_CACHE"


def folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get(FOLDER_VARIABLE) or user_cache_path("umamba_seg") / "kernels")


@dataclass(frozen=True, slots=True)
class Kept:
    """A kernel on disk, and how long it took to compile."""

    code: bytes
    seconds: float


def load(name: str, make: Callable[[], Any]) -> Kernel:
    """The kernel of this name, from disk, or else compiled from the source that `make` gives: seconds."""
    found = kept(name)
    if found is None:
        began = time.process_time()
        code = _compile(make)
        found = Kept(code, time.process_time() - began)
        _keep(name, found)
    return _linked(found.code)


def kept(name: str) -> Kept | None:
    """A kernel that lies on disk whole."""
    try:
        found = _path(name).read_bytes()
    except OSError:
        return None
    checksum, content = found[:_CHECKSUM], found[_CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    (seconds,) = _SECONDS.unpack_from(content)
    return Kept(content[_SECONDS.size :], seconds)


@cache
def _version() -> str:
    """Changes whenever machine code would: with our source, the one number from outside it, compilers, processor."""
    key = hashlib.sha256()
    for file in sorted(files("umamba_seg.kernels.numba").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            key.update(file.read_bytes())
    told = (version("numba"), version("llvmlite"), platform.python_version(), platform.machine(), platform.system())
    key.update(repr((told, target(), CHECKPOINT_STEP)).encode())
    return key.hexdigest()[:16]


def _path(name: str) -> Path:
    return folder() / f"{name}-{_version()}.o"


def _keep(name: str, kernel: Kept) -> None:
    """Write a kernel; without a place for it, the next process compiles it again."""
    path, content = _path(name), _SECONDS.pack(kernel.seconds) + kernel.code
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        try:
            os.replace(file.name, path)
        finally:
            Path(file.name).unlink(missing_ok=True)
    except OSError:
        return


def _compile(make: Callable[[], Any]) -> bytes:
    """Object code of a Python function of three int64, in which the kernels' words are allowed."""
    from numba.core import types
    from numba.core.compiler import Flags, compile_extra
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    flags = Flags()
    flags.error_model, flags.nrt = "numpy", False
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_rewrites = True
    typing, lowering = cpu_target.typing_context, cpu_target.target_context
    with global_compiler_lock, _quickly(), _without_machine_code(lowering):
        typing.refresh()
        lowering.refresh()
        compiled = compile_extra(typing, lowering, make(), (types.int64,) * 3, types.void, flags, {})
        compiled.library.finalize()  # links what it calls
        code = compiled.library.get_llvm_str()
    module = llvm.parse_assembly(code.replace(compiled.fndesc.llvm_func_name, "kernel"))
    return bytes(_machine().emit_object(module))


@contextmanager
def _quickly() -> Iterator[None]:
    """Numba's level 1 in place of 3: explicit vectors leave little to find. A fifth less time, code as fast.

    Without garbage collection, which walks numba's millions of objects again and again, a tenth less.
    """
    from numba.core import config

    before, config.OPT, is_collecting = config.OPT, type(config.OPT)(1), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        config.OPT = before
        if is_collecting:
            gc.enable()


@contextmanager
def _without_machine_code(lowering: Any) -> Iterator[None]:
    """LLVM's code is all that is wanted of numba, of a kernel and of what it calls. A seventh less time."""
    codegen = lowering.codegen()
    codegen._add_module = lambda module: None  # to those that machine code is made of
    # numba tells functions apart by what Python would call: a builtin of its own for each, that is never called
    lowering.get_executable = lambda library, description, environment: [].clear
    try:
        yield
    finally:
        del codegen._add_module, lowering.get_executable


def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    chosen = target()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=chosen.cpu, features=chosen.features, opt=3, reloc="pic", codemodel="small"
    )


_engines: list[Any] = []  # they own the machine code, which must outlive every call


def _linked(code: bytes) -> Kernel:
    # llvmlite's memory manager keeps code and constants together, as the small code model needs
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(), use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    function = _SIGNATURE(engine.get_function_address("kernel"))
    unused = (ctypes.c_int64 * 4)()  # numba's results and exceptions, of which there are none
    _engines.append(unused)
    result, exception = ctypes.addressof(unused), ctypes.addressof(unused) + 16

    def kernel(frame: int, item: int, scratch: int) -> int:
        return int(function(result, exception, frame, item, scratch))

    return kernel

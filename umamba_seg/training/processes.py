"""The processes of one training: started here, or by torchrun."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, multiprocessing

from umamba_seg.errors import UmambaError

TIMEOUT = timedelta(hours=2)  # one process may validate for long while the others wait
SECONDS_TO_END = 60.0
Result = TypeVar("Result")


def local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """The number of this process among all."""
    return int(os.environ.get("RANK", "0"))


def is_launched() -> bool:
    """Whether torchrun, or `in_processes`, started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group(device_type: str) -> Iterator[None]:
    """Membership in the group that the environment describes, if it describes one: nccl on CUDA, else gloo."""
    if not is_launched():
        yield
        return
    if device_type == "cuda":
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def in_processes(count: int, here: Callable[[], Result], there: Callable[..., Any], *arguments: Any) -> Result:
    """Run `here` in this process as rank 0, and `there(*arguments)`, which must be picklable, in others beside it."""
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    started = [
        multiprocessing.get_context("spawn").Process(target=_as_rank, args=(number, variables, there, arguments))
        for number in range(1, count)
    ]
    for process in started:
        process.start()
    try:
        with _environment(0, variables):
            return here()
    finally:
        for process in started:
            process.join(SECONDS_TO_END)
            if process.is_alive():
                process.terminate()


def _as_rank(number: int, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with _environment(number, variables):
        try:
            function(*arguments)
        except UmambaError as error:  # rank 0 tells it
            sys.exit(error.exit_code)


@contextmanager
def _environment(number: int, variables: dict[str, str]) -> Iterator[None]:
    own = variables | {"RANK": str(number), "LOCAL_RANK": str(number)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

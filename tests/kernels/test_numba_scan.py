"""What only the numba backend promises: bits that no number of threads changes, and machine code that finds its way."""

import ctypes
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.kernels.closeness import assert_within
from tests.kernels.scan_cases import Case, outcome
from umamba_seg.kernels import scan_volume, selective_scan

pytest.importorskip("numba")

from umamba_seg.kernels.numba import compiler, work
from umamba_seg.kernels.numba import scan as numba_scan

CASES = [
    Case(1, 400, 100, 16, layout="bld"),
    Case(3, 90, 40, 17, layout="bdl", reverse=True),
    Case(1, 300, 12, 5, B=0, C=4, layout="bld"),
    Case(1, 300, 40, 8, layout="bld", ends=(0, 10, 10, 200, 300)),
]

MARK = 171


def in_float32(case: Case) -> dict[str, torch.Tensor]:
    return {name: x.float() for name, x in case.tensors().items()}


def scan(**given):
    return selective_scan(**given, return_last_state=True, backend="numba")


@pytest.fixture
def many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small scans are given to one thread; here each gets all there are."""
    monkeypatch.setattr(work, "UPDATES_OF_A_THREAD", 1)


@pytest.mark.usefixtures("many_items")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_number_of_threads_changes_a_bit(case):
    torch.set_num_threads(1)
    alone = outcome(scan, in_float32(case), **case.options())

    for threads in (2, 3, 16):
        torch.set_num_threads(threads)
        together = outcome(scan, in_float32(case), **case.options())
        assert [name for name in alone if not torch.equal(alone[name], together[name])] == []


@pytest.mark.usefixtures("many_items")
def test_no_number_of_threads_changes_a_bit_of_a_volume():
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator)
        for name, shape in {
            "u": (2, 5, 6, 7, 40),
            "delta": (2, 5, 6, 7, 40),
            "B": (4, 2, 5, 6, 7, 9),
            "C": (2, 5, 6, 7, 9),
        }.items()
    }
    tensors |= {"A": -torch.rand(40, 9, generator=generator), "weights": torch.randn(2, 4, 40, generator=generator)}
    table = torch.randperm(210, generator=generator)
    table[7] = table[3]  # added twice, in one order

    def volume(**given):
        return scan_volume(
            **given, routes=["zyx", "-y", "+x", table], delta_softplus=True, return_last_state=True, backend="numba"
        )

    torch.set_num_threads(1)
    alone = outcome(volume, tensors)

    for threads in (2, 5, 16):
        torch.set_num_threads(threads)
        together = outcome(volume, tensors)
        assert [name for name in alone if not torch.equal(alone[name], together[name])] == []


def run_watched(kernel, frame, items, scratch, threads, teams=None):
    """What `work.run` does, all items at once, and nothing around the scratch memory is written to."""
    told = (ctypes.c_int64 * len(frame))(*frame)
    named = [(ctypes.c_int64 * len(item))(*item) for item in items]
    memories = [torch.full((64 + scratch + 4096,), MARK, dtype=torch.uint8) for _ in items]
    before = [-memory.data_ptr() % 64 for memory in memories]
    workers = [
        threading.Thread(
            target=kernel, args=(ctypes.addressof(told), ctypes.addressof(item), memory.data_ptr() + first)
        )
        for item, memory, first in zip(named, memories, before, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for memory, first in zip(memories, before, strict=True):
        assert (memory[:first] == MARK).all()
        assert (memory[first + scratch :] == MARK).all()


@pytest.mark.usefixtures("many_items")
@pytest.mark.parametrize("states", [1, 4, 8, 17])
@pytest.mark.parametrize("threads", [3, 16])
def test_kernels_stay_within_their_scratch_memory(monkeypatch, states, threads):
    monkeypatch.setattr(work, "run", run_watched)
    monkeypatch.setattr(work, "processors", lambda: 16)
    torch.set_num_threads(threads)
    for case in (Case(2, 130, 40, states, layout="bld"), Case(1, 65, 17, states, layout="bdl", reverse=True)):
        outcome(scan, in_float32(case), **case.options())

    u = torch.randn(1, 3, 8, 17, 20, requires_grad=True)
    given = {"u": u, "delta": u, "A": -torch.rand(20, states), "B": u[..., :states], "C": u[..., :states]}
    for options in ({"exclusive": "shift"}, {"exclusive": "own"}, {"exact_gain": True}, {}):
        scan_volume(**given, routes=["+x", "-x", "zyx"], backend="numba", **options).sum().backward()


@pytest.mark.parametrize("exclusive", [None, "own"])
@pytest.mark.parametrize("merge", ["sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lines_there_and_back_in_one_go_are_the_sum_of_both(exclusive, merge, weighted):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    space, d, n, routes = (3, 5, 33), 20, 17, ["+x", "-x", "-y", "+y", "+z"]
    shared = {"u": normal(2, *space, d), "delta": normal(2, *space, d), "A": -normal(d, n).abs()}
    own = {"B": normal(5, 2, *space, n), "C": normal(5, 2, *space, n), "D": normal(5, d)}
    options = {"delta_softplus": True, "exclusive": exclusive, "backend": "numba", "spatial_dims": 3}
    weights = normal(2, 5, d) if weighted else torch.ones(2, 5, d)

    together = scan_volume(**shared, **own, z=shared["u"], routes=routes, merge=merge, weights=weights, **options)

    alone = [
        scan_volume(**shared, **{name: x[k] for name, x in own.items()}, routes=[route], **options)
        * weights[:, k, None, None, None]
        for k, route in enumerate(routes)
    ]
    total = sum(alone) * torch.nn.functional.silu(shared["u"]) / (5 if merge == "mean" else 1)
    assert_within({"y": together}, {"y": total.double()})


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("sequences", [0, 1, 3, 100])
@pytest.mark.parametrize(("groups", "blocks"), [(1, 4), (1, 1), (6, 1)])
def test_items_have_every_block_of_every_sequence_once(threads, sequences, groups, blocks):
    met = [
        (sequence, group, block)
        for a, b, c, d, e, f in work.forward_items(sequences, groups, blocks, threads)
        for sequence in range(a, b)
        for group in range(c, d)
        for block in range(e, f)
    ]

    assert sorted(met) == [(s, g, b) for s in range(sequences) for g in range(groups) for b in range(blocks)]


SCAN = """
import sys, torch
from umamba_seg.kernels import selective_scan
x = torch.ones(1, 70, 20, requires_grad=True)
y = selective_scan(x, x, -torch.ones(20, 4), x[..., :4], x[..., :4], layout="bld", backend="numba")
y.sum().backward()
"""


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", **variables}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, timeout=300
    )


def test_kernels_are_compiled_once_and_come_back_without_numba(tmp_path: Path):
    """The machine code goes to a folder of the user's: nothing is written beside the source."""
    told = SCAN + "print('numba' in sys.modules, x.grad.sum().item())"
    package = Path(numba_scan.__file__).parent
    before = {path: path.stat().st_mtime_ns for path in package.glob("*.*")}

    first, second = (python(told, UMAMBA_KERNEL_CACHE=str(tmp_path), PYTHONDONTWRITEBYTECODE="1") for _ in range(2))

    assert first.stdout.startswith("True "), first.stderr
    assert second.stdout == first.stdout.replace("True", "False"), second.stderr
    assert len(list(tmp_path.iterdir())) == 2
    assert {path: path.stat().st_mtime_ns for path in package.glob("*.*")} == before
    assert not list(package.glob("*.nb*"))


def test_a_place_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path):
    kept = tmp_path / "file"
    kept.write_text("where a folder would have to be")

    result = python(SCAN + "print(x.grad.sum().item() != 0)", UMAMBA_KERNEL_CACHE=str(kept / "kernels"))

    assert result.stdout == "True\n", result.stderr


def test_a_damaged_kernel_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(compiler.FOLDER_VARIABLE, str(tmp_path))
    compiler._keep("some", compiler.Kept(b"code", 1.5))
    path = next(tmp_path.iterdir())
    assert compiler.kept("some") == compiler.Kept(b"code", 1.5)

    path.write_bytes(path.read_bytes()[:-1])

    assert compiler.kept("some") is None
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_kernel_of_tiles_of_another_size_is_not_taken_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The size of a tile is compiled into kernels, and does not come from their own source."""
    monkeypatch.setenv(compiler.FOLDER_VARIABLE, str(tmp_path))
    compiler._keep("some", compiler.Kept(b"code", 1.5))

    monkeypatch.setattr(compiler, "CHECKPOINT_STEP", compiler.CHECKPOINT_STEP // 2)
    monkeypatch.setattr(compiler, "_version", compiler._version.__wrapped__)

    assert compiler.kept("some") is None


def test_many_processes_can_start_at_once(tmp_path: Path):
    environment = {**os.environ, "UMAMBA_KERNEL_CACHE": str(tmp_path), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    command = [sys.executable, "-c", SCAN + "print(x.grad.sum().item())"]
    several = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    outputs = [process.communicate(timeout=300)[0] for process in several]

    assert len(set(outputs)) == 1
    assert outputs[0]


FORKING = """
import os, sys, torch
from umamba_seg.kernels import selective_scan
torch.set_num_threads(2)
x = torch.randn(1, 20000, 64, generator=torch.Generator().manual_seed(0))
def scan():
    return selective_scan(x, x, -torch.ones(64, 8), x[..., :8], x[..., :8], delta_softplus=True, layout="bld", backend="numba")
expected = scan()
"""  # noqa: E501


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that the processes of these tests share: the first one compiles."""
    return str(tmp_path_factory.mktemp("compiled"))


def test_a_forked_child_scans_after_its_parent_did(compiled: str):
    program = FORKING + (
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if torch.equal(scan(), expected) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )

    assert python(program, UMAMBA_KERNEL_CACHE=compiled).stdout == "0\n"


def test_a_spawned_child_scans_too(tmp_path: Path, compiled: str):
    script = tmp_path / "spawning.py"
    script.write_text(
        FORKING + "def child(queue): queue.put(torch.equal(scan(), expected))\n"
        "if __name__ == '__main__':\n"
        "    from multiprocessing import get_context\n"
        "    context = get_context('spawn'); queue = context.Queue()\n"
        "    process = context.Process(target=child, args=(queue,)); process.start()\n"
        "    print(queue.get(timeout=100)); process.join()\n"
    )
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "UMAMBA_KERNEL_CACHE": compiled}

    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)

    assert result.stdout == "True\n", result.stderr


def test_threads_set_between_calls_are_obeyed(monkeypatch: pytest.MonkeyPatch):
    asked = []
    run = work.run
    monkeypatch.setattr(work, "run", lambda *given: (asked.append(given[-1]), run(*given))[1])
    x = torch.randn(1, 5000, 64)

    for threads in (1, 2, 1, 3):
        torch.set_num_threads(threads)
        selective_scan(x, x, -torch.ones(64, 16), x[..., :16], x[..., :16], layout="bld", backend="numba")

    assert asked == [1, 2, 1, 3]


def test_without_numba_the_torch_backend_runs_and_info_says_so():
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from umamba_seg.kernels import info, selective_scan\n"
        "x = torch.ones(1, 5, 3); selective_scan(x, x, -torch.ones(3, 2), x[..., :2], x[..., :2], layout='bld')\n"
        "print(info()['cpu'].backend, info()['cpu'].why_not['numba'])"
    )

    assert python(program).stdout == "torch numba is not installed (pip install numba)\n"


def test_a_file_of_the_cache_is_replaced_and_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(compiler.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))

    compiler._keep("some", compiler.Kept(b"code", 1.5))

    assert compiler.kept("some") is None

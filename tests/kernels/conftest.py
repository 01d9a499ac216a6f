from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from tests.kernels.scan_backends import is_interpreted

ONE_IN = 5
OF_TORCH = ("test_scan_graphs", "test_volume_graphs")  # graphs are made of operators alike, whoever computes them


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In Triton's interpreter, where a case may take a minute, only one in some of each test is fast."""
    met: Counter[object] = Counter()
    for item in items:
        if not hasattr(item, "callspec") or not is_interpreted(item.callspec.params.get("backend", "")):
            continue
        if met[item.function] % ONE_IN or (item.path.stem in OF_TORCH and "keep_torchs_rules" not in item.name):
            item.add_marker(pytest.mark.slow)
        met[item.function] += 1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small operations wait for each other where tests share the cores; a test of threads sets its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_memory_holds_nan() -> Iterator[None]:
    """Whatever a kernel forgets to write shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]

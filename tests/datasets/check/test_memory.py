import numpy as np
import pytest

from umamba_seg.datasets.check.facts import CaseFacts, FileFacts
from umamba_seg.datasets.check.memory import faults, peak_bytes
from umamba_seg.planning.estimate import _peak_bytes


def case(name: str, shape: tuple[int, int, int], spacing: float = 1.0) -> CaseFacts:
    return CaseFacts(name, {0: FileFacts(name, shape=shape, affine=np.diag([1.0, 1.0, spacing, 1.0]))}, None)


CASES = [case("a", (10, 10, 10)), case("b", (10, 10, 10)), case("c", (10, 10, 10), 20.0), case("d", (40, 40, 40))]


def test_cases_that_take_more_than_is_free_are_named_the_largest_first():
    free = peak_bytes(1e3, 1.5e4, 1)  # a and b take less, c has slices 20 times as thick, d is 64 times as large

    (finding,) = faults(CASES, 1, free)

    assert (finding.code, finding.severity, finding.cases) == ("huge", "warning", ("c", "d"))
    assert finding.message.index("d 0.00") < finding.message.index("c 0.00")


def test_what_fits_is_left_in_peace():
    assert list(faults(CASES, 1, 1e9)) == []
    assert list(faults([], 1, 0.0)) == []
    assert list(faults([CaseFacts("x", {}, None)], 1, 1.0)) == []


@pytest.mark.parametrize("channels", [1, 4])
def test_the_estimate_is_that_of_preprocessing(channels):
    assert peak_bytes(1e6, 3e6, channels) == _peak_bytes(1e6, 3e6, channels)

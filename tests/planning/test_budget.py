import pytest
from hypothesis import given
from hypothesis import strategies as st

from umamba_seg.planning.budget import PLAIN, REFERENCE_BATCH, RESIDUAL

BUDGETS = st.sampled_from([PLAIN, RESIDUAL])
DIMS = st.sampled_from([2, 3])


@pytest.mark.parametrize(("gb", "elements"), [(8, 680e6), (24, 2.1e9), (40, 3.6e9)])
def test_presets_have_the_budgets_of_resenc(gb, elements):
    assert RESIDUAL.elements_for(gb, 3) == elements
    assert RESIDUAL.gb_for(elements, 2, 3) == gb


@given(BUDGETS, DIMS, st.floats(0.1, 200))
def test_memory_and_elements_are_two_words_for_the_same(budget, dims, gb):
    elements = budget.elements_for(gb, dims)
    assert budget.gb_for(elements, REFERENCE_BATCH[dims], dims) == pytest.approx(gb)


@given(BUDGETS, DIMS, st.floats(0.1, 200), st.floats(0.1, 200))
def test_more_memory_holds_more(budget, dims, one, other):
    less, more = sorted((one, other))
    assert budget.elements_for(less, dims) <= budget.elements_for(more, dims)


def test_twice_the_batch_of_a_small_network_takes_twice_the_memory():
    assert RESIDUAL.gb_for(100e6, 4, 3) == pytest.approx(2 * RESIDUAL.gb_for(100e6, 2, 3))

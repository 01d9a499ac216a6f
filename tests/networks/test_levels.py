import pytest

from umamba_seg.networks.levels import strides_for

PLAN = {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]}


@pytest.mark.parametrize("patch", [[128, 128, 128], [16, 32, 16], [64, 192, 160]])
def test_strides_are_two_where_the_patch_allows_it(patch):
    assert strides_for(PLAN, patch, 5) == [[1] * 3, *[[2] * 3] * 4]


@pytest.mark.parametrize("patch", [[40, 224, 192], [16, 16, 16], [8, 256, 256]])
def test_strides_are_those_of_the_plan_where_two_would_cut_or_leave_one_voxel(patch):
    assert strides_for(PLAN, patch, 5) == PLAN["strides"][:5]


def test_a_plan_with_fewer_strides_is_made_up_with_ones():
    plan = {"strides": [[1, 1], [2, 2], [2, 2]]}

    assert strides_for(plan, [20, 28], 5) == [[1, 1], [2, 2], [2, 2], [1, 1], [1, 1]]

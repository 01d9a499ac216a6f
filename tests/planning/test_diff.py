from copy import deepcopy
from pathlib import Path

import pytest

from tests.planning.made_up import MadeUp, make_up
from tests.planning.test_plan import plans_of
from umamba_seg.networks import NETWORKS
from umamba_seg.planning.diff import differences, is_controlled
from umamba_seg.planning.swap import swapped, twin_of


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return make_up(tmp_path, (60, 100, 100), (2.0, 1.0, 1.0))


@pytest.fixture
def plans(made_up: MadeUp) -> dict:
    return plans_of(made_up, "umamba_enc")


def test_plans_do_not_differ_from_themselves_under_another_name(plans):
    assert differences(plans, {**deepcopy(plans), "plans_name": "otherPlans"}) == ()


def test_a_twin_differs_in_its_mixer_alone_and_is_a_controlled_comparison(plans):
    found = differences(plans, twin_of(plans, "none", "twinPlans"))
    assert [str(difference) for difference in found] == [
        "2d  network mixer  mamba → none",
        "3d_fullres  network mixer  mamba → none",
    ]
    assert is_controlled(found)


@pytest.mark.parametrize("name", ["segmamba", "umamba_bot"])
def test_swapped_plans_are_a_controlled_comparison(made_up, name):
    stock = plans_of(made_up, "resenc_m")
    found = differences(swapped(stock, NETWORKS[name], NETWORKS[name].mixer, "swappedPlans"), stock)
    assert any(difference.what == "network" for difference in found)
    assert is_controlled(found)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("batch_size", 7, "batch"),
        ("patch_size", [32, 32, 32], "patch"),
        ("spacing", [1.0, 1.0, 1.0], "spacing"),
        ("data_identifier", "other_3d", "data"),
        ("normalization_schemes", ["ZScoreNormalization"], "normalisation"),
    ],
)
def test_what_makes_results_incomparable_is_told(plans, key, value, told):
    other = deepcopy(plans)
    other["configurations"]["3d_fullres"][key] = value

    (difference,) = differences(plans, other)

    assert (difference.configuration, difference.what, difference.second) == ("3d_fullres", told, value)
    assert not is_controlled([difference])


def test_inherited_values_are_compared(plans):
    other = deepcopy(plans)
    for entry in (plans, other):
        entry["configurations"]["mine"] = {"inherits_from": "3d_fullres"}
    other["configurations"]["3d_fullres"]["batch_size"] = 9
    assert {(found.configuration, found.what) for found in differences(plans, other)} == {
        ("3d_fullres", "batch"),
        ("mine", "batch"),
    }


def test_a_configuration_that_only_one_has_is_told(plans):
    other = deepcopy(plans)
    del other["configurations"]["2d"]
    (difference,) = differences(plans, other)
    assert str(difference) == "2d  configuration  there → none"

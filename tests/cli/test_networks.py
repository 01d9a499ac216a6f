"""`umamba networks`: what there is to plan with, and how far mixers see."""

import matplotlib.image
import pytest

from tests.helpers import mends
from umamba_seg.mixers.registry import MIXERS
from umamba_seg.networks.registry import NETWORKS

REACH = ("networks", "--size", "6,9,9", "--spacing", "3,1,1", "--channels", 4, "--reach")


def test_all_networks_are_listed_with_their_sizes(umamba):
    told = umamba("networks", "--json").document()

    assert [network["name"] for network in told["networks"]] == list(NETWORKS)
    assert all(len(network["parameters"]) == len(network["dims"]) for network in told["networks"])
    assert told["mixers"] == list(MIXERS)


def test_only_those_for_so_many_axes_are_listed_if_asked_for(umamba):
    told = umamba("networks", "--dims", 2, "--json").document()

    assert [network["name"] for network in told["networks"]] == [
        name for name, record in NETWORKS.items() if 2 in record.dims
    ]


def test_one_is_told_with_the_command_that_plans_it(umamba):
    answer = umamba("networks", "umamba_enc")

    assert answer.code == 0
    assert "umamba plan DATASET --network umamba_enc" in answer.out


def test_an_unknown_one_is_answered_with_the_closest(umamba):
    assert "did you mean umamba_enc" in mends(umamba("networks", "umamba_enk"), code=2)


def test_a_convolution_sees_as_far_as_its_kernel_and_in_mm(umamba):
    answer = umamba(*REACH, "conv", "--plot", "conv.png", "--json")

    assert answer.code == 0, answer.err
    reach = answer.document()["mm"]
    clear = {direction: far["clear"] for direction, far in reach.items()}
    assert {far / (3 if "z" in direction else 1) for direction, far in clear.items()} == {1.0}, clear
    assert matplotlib.image.imread(umamba.folder / "conv.png").ndim == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((*REACH, "none"), "sees nothing"),
        ((*REACH, "mambo"), "mamba"),
        (("networks", "--plot", "reach.png"), "--reach MIXER"),
    ],
    ids=["no layer", "unknown", "plot of nothing"],
)
def test_a_reach_that_cannot_be_told_is_refused(umamba, options, told):
    assert told in mends(umamba(*options), code=2)

import pytest

from umamba_seg.errors import UsageError
from umamba_seg.mixers.registry import MIXERS
from umamba_seg.networks import NETWORKS
from umamba_seg.planning.names import (
    TWINS,
    check_plans_name,
    default_plans_name,
    swapped_plans_name,
    twin_plans_name,
)

ENC = NETWORKS["umamba_enc"]


@pytest.mark.parametrize(
    ("mixer", "gb", "name"),
    [
        ("mamba", 8, "umambaEnc8GPlans"),
        ("mamba", 10.5, "umambaEnc10.5GPlans"),
        ("none", 8, "umambaEncNoMamba8GPlans"),
        ("conv", 24, "umambaEncMatched24GPlans"),
        ("gated_conv", 8, "umambaEncGatedConv8GPlans"),
        ("segmamba_v2", 8, "umambaEncSegmambaV2_8GPlans"),
    ],
)
def test_plans_are_named_after_network_mixer_and_memory(mixer, gb, name):
    assert default_plans_name(ENC, mixer, gb) == name


def test_the_twins_of_the_published_network_have_the_names_of_those_planned_by_themselves():
    for mixer in TWINS:
        assert twin_plans_name("umambaEnc8GPlans", mixer) == default_plans_name(ENC, mixer, 8)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("umambaSegmambaV2_8GPlans", "umambaSegmambaV2NoMamba8GPlans"),
        ("our3DPlans", "our3DNoMambaPlans"),
        ("mine", "mineNoMambaPlans"),
    ],
)
def test_twins_of_plans_with_any_name(name, twin):
    assert twin_plans_name(name, "none") == twin


def test_no_two_plans_share_a_name():
    names = [
        name
        for network in NETWORKS.values()
        for mixer in MIXERS
        for gb in (2, 8, 24, 28)
        for name in {
            default_plans_name(network, mixer, gb),
            *(twin_plans_name(default_plans_name(network, mixer, gb), twin) for twin in TWINS if mixer not in TWINS),
        }
    ]
    # the twins of a network are those that `--mixer` plans by itself
    twins_said_twice = len(NETWORKS) * 4 * len(TWINS)
    assert len(names) == len(set(names)) + twins_said_twice
    for name in names:
        check_plans_name(name)


def test_swapped_plans_say_where_they_come_from():
    name = swapped_plans_name(ENC, "mamba", "nnUNetResEncUNetLPlans")
    assert name == "umambaEncFromNnUNetResEncUNetLPlans"
    assert twin_plans_name(name, "conv") == "umambaEncFromNnUNetResEncUNetLMatchedPlans"


@pytest.mark.parametrize("name", ["a__b", "../a", "a/b", "", ".hidden", "a b"])
def test_a_name_that_would_break_folder_names_is_refused(name):
    with pytest.raises(UsageError, match="letters"):
        check_plans_name(name)

from copy import deepcopy
from pathlib import Path

import pytest

from tests.planning.made_up import MadeUp, make_up
from tests.planning.test_plan import plans_of
from umamba_seg.errors import UsageError
from umamba_seg.networks import NETWORKS
from umamba_seg.planning import meta
from umamba_seg.planning.swap import swapped, twin_of

pytestmark = pytest.mark.filterwarnings("ignore:WARNING. You are running nnUNetPlanner:UserWarning")


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return make_up(tmp_path, (100, 128, 128), (1.0, 0.8, 0.8))


@pytest.fixture(scope="module", params=["nnunet", "resenc_m", "umamba_enc", "lightm_unet"])
def source(request, tmp_path_factory) -> dict:
    made_up = make_up(tmp_path_factory.mktemp("source"), (100, 128, 128), (1.0, 0.8, 0.8))
    return plans_of(made_up, request.param)


def without_network(plans: dict) -> dict:
    entries = {
        name: {key: value for key, value in entry.items() if key != "architecture"}
        for name, entry in plans["configurations"].items()
    }
    return {**plans, "configurations": entries, "plans_name": None}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_but_the_network_stays(source, name):
    before = deepcopy(source)

    after = swapped(source, NETWORKS[name], NETWORKS[name].mixer, "swappedPlans")

    assert source == before, "plans are not changed in place"
    assert without_network(after) == without_network(before)
    for entry in after["configurations"].values():
        if "architecture" in entry:
            assert entry["architecture"]["network_class_name"] == NETWORKS[name].class_path
            meta.check_patch(meta.build(entry["architecture"], 1, 3), entry["patch_size"], where="")


def test_strides_are_kept_where_the_network_has_stages_of_the_plan(made_up):
    before = plans_of(made_up, "resenc_m")
    after = swapped(before, NETWORKS["umamba_enc"], "mamba", "swappedPlans")
    for key in ("strides", "kernel_sizes", "features_per_stage"):
        assert (
            after["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][key]
            == before["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][key]
        )


def test_what_belongs_to_the_old_network_goes(made_up):
    before = plans_of(made_up, "umamba_gen1_enc")
    after = swapped(before, NETWORKS["umamba_bot"], "mamba", "swappedPlans")
    assert "generation" not in after["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]


def test_a_configuration_of_the_users_own_that_inherits_gets_a_whole_block(made_up):
    before = plans_of(made_up, "nnunet")
    before["configurations"]["small"] = {"inherits_from": "3d_fullres", "patch_size": [64, 64, 64]}
    before["configurations"]["more"] = {"inherits_from": "3d_fullres", "batch_size": 7}

    after = swapped(before, NETWORKS["umamba_enc"], "mamba", "swappedPlans")["configurations"]

    assert after["small"]["architecture"]["arch_kwargs"]["patch_size"] == [64, 64, 64]
    assert after["more"] == before["configurations"]["more"]


def test_a_twin_differs_in_one_word(made_up):
    plans = plans_of(made_up, "umamba_enc")
    twin = twin_of(plans, "none", "twinPlans")
    for name, entry in plans["configurations"].items():
        if "architecture" in entry:
            entry["architecture"]["arch_kwargs"]["mixer"] = "none"
        assert twin["configurations"][name] == entry
    assert without_network(twin) == without_network(plans)


def test_plans_of_other_data_are_refused(made_up):
    file = made_up.write_plans({**plans_of(made_up, "nnunet"), "dataset_name": "Dataset007_Other"})
    with pytest.raises(UsageError, match="Dataset007_Other"):
        made_up.plan(based_on=str(file))


def test_a_patch_that_a_user_made_unfit_is_told_with_one_that_fits(made_up):
    plans = plans_of(made_up, "nnunet")
    plans["configurations"]["3d_fullres"]["patch_size"] = [100, 100, 100]
    made_up.write_plans(plans)

    with pytest.raises(UsageError) as fault:
        made_up.plan(network="umamba_enc", based_on="nnUNetPlans", configurations=["3d_fullres"])

    assert "100×100×100" in str(fault.value)
    assert "use 96×96×96" in str(fault.value)


def test_swapped_plans_are_described_as_what_they_come_from(made_up):
    made_up.write_plans(plans_of(made_up, "resenc_m"))
    result = made_up.plan(network="segmamba", based_on="nnUNetResEncUNetMPlans", twin=True)
    assert [network.plans_name for network in result.networks] == [
        "umambaSegmambaFromNnUNetResEncUNetMPlans",
        "umambaSegmambaFromNnUNetResEncUNetMNoMambaPlans",
        "umambaSegmambaFromNnUNetResEncUNetMMatchedPlans",
    ]
    assert {entry.why for entry in result.networks[0].configurations} == {"as in nnUNetResEncUNetMPlans"}


def test_a_source_that_is_not_there_is_answered_with_those_that_are(made_up):
    made_up.write_plans(plans_of(made_up, "nnunet"))
    with pytest.raises(UsageError, match="nnUNetPlans"):
        made_up.plan(based_on="nnUNetPlan")

"""What is planned for data of all shapes. No image is read and no weight allocated."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.planning.made_up import MadeUp, make_up
from umamba_seg.errors import UsageError
from umamba_seg.networks import NETWORKS
from umamba_seg.planning import meta
from umamba_seg.planning.plan import PlanResult, plan
from umamba_seg.planning.request import make_plans, request_for
from umamba_seg.workspace import Workspace, find_dataset

# what upstream's planner says when its memory is set by hand
pytestmark = pytest.mark.filterwarnings("ignore:WARNING. You are running nnUNetPlanner:UserWarning")

SHAPES = {
    "cubes": ((100, 100, 100), (1.0, 1.0, 1.0)),
    "thick slices": ((14, 160, 160), (8.0, 0.7, 0.7)),
    "small": ((35, 51, 35), (1.0, 1.0, 1.0)),
    "one row": ((24, 9, 130), (1.0, 4.0, 0.5)),
    "flat": ((1, 400, 600), (999.0, 1.0, 1.0)),
}


@pytest.fixture(params=SHAPES)
def made_up(request, tmp_path: Path) -> MadeUp:
    return make_up(tmp_path, *SHAPES[request.param])


@pytest.fixture
def cubes(tmp_path: Path) -> MadeUp:
    return make_up(tmp_path, *SHAPES["cubes"])


@pytest.fixture
def large(tmp_path: Path) -> MadeUp:
    """Images so large that nnU-Net plans a cascade."""
    return make_up(tmp_path, (128, 128, 128), (1.0, 0.8, 0.8))


def plans_of(made_up: MadeUp, name: str, **options) -> dict:
    """The plans themselves, of which `plan` returns a description."""
    place = Workspace.below(made_up.workspace)
    asked = dict.fromkeys(("mixer", "vram_gb", "plans_name", "patch", "batch", "based_on"))
    with place.active():
        request = request_for(name, **{**asked, "features": 32, "twin": False, **options})
        return make_plans(request, find_dataset("901", place), None)


def configurations(result: PlanResult) -> dict:
    return {entry.name: entry for entry in result.networks[0].configurations}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_the_patch_that_is_planned_for_it(made_up, name):
    for configuration, entry in plans_of(made_up, name, vram_gb=4)["configurations"].items():
        if "inherits_from" in entry:
            continue
        network = meta.build(entry["architecture"], 1, 3)
        with torch.device("meta"):
            outputs = network(torch.empty(2, 1, *entry["patch_size"]))

        assert list(outputs[0].shape) == [2, 3, *entry["patch_size"]], configuration
        spacing = entry["architecture"]["arch_kwargs"]["spacing"]
        assert spacing == entry["spacing"]
        assert len(spacing) == len(entry["patch_size"])


def test_flat_data_get_a_2d_plan_alone(tmp_path):
    flat = make_up(tmp_path, *SHAPES["flat"])
    assert list(configurations(flat.plan(network="segmamba"))) == ["2d"]


@pytest.mark.parametrize("name", ["umamba_enc", "segmamba", "lightm_unet"])
def test_large_data_get_a_cascade_with_a_whole_architecture(large, name):
    plans = plans_of(large, name, vram_gb=1)["configurations"]
    assert set(plans) == {"2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"}
    assert plans["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    assert plans["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}

    described = configurations(large.plan(network=name, vram_gb=1, configurations=["3d_fullres", "3d_cascade_fullres"]))
    alone, cascade = described["3d_fullres"], described["3d_cascade_fullres"]
    assert cascade.patch == alone.patch
    assert cascade.parameters > alone.parameters, "the cascade reads the labels of the first stage too"


def test_a_cascade_shares_the_data_of_its_configuration(large):
    result = large.plan(vram_gb=1)
    assert [entry.configuration for entry in result.data] == ["2d", "3d_lowres", "3d_fullres"]


def test_the_folders_of_the_default_plans_are_shared(large):
    entries = plans_of(large, "umamba_enc", vram_gb=1)["configurations"]
    assert entries["2d"]["data_identifier"] == "nnUNetPlans_2d"
    assert entries["3d_fullres"]["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert entries["3d_lowres"]["data_identifier"] == "umambaEnc1GPlans_3d_lowres", "its spacing is its own"


def test_more_memory_buys_more_elements_and_the_estimate_stays_within(large):
    planned = [
        configurations(large.plan(network="umamba_enc", vram_gb=gb, configurations=["3d_fullres"]))["3d_fullres"]
        for gb in (1, 2, 4)
    ]
    voxels = [torch.Size(entry.patch).numel() * entry.batch for entry in planned]
    assert all(less < more for less, more in pairwise(voxels))
    for gb, entry in zip((1, 2, 4), planned, strict=True):
        assert 0.5 * gb < entry.memory_gb <= 1.05 * gb


def test_scans_at_full_resolution_leave_less_for_the_patch(large):
    enc, twin = (
        configurations(large.plan(network="umamba_enc", mixer=mixer, vram_gb=2, configurations=["3d_fullres"]))[
            "3d_fullres"
        ]
        for mixer in (None, "none")
    )
    assert torch.Size(enc.patch).numel() < torch.Size(twin.patch).numel()


@pytest.mark.parametrize("name", NETWORKS)
def test_twins_have_everything_but_the_mixer_in_common(cubes, name):
    network, none, matched = cubes.plan(network=name, twin=True).networks
    assert (none.mixer, matched.mixer) == ("none", "conv")
    for one, two, three in zip(network.configurations, none.configurations, matched.configurations, strict=True):
        assert one.patch == two.patch == three.patch
        assert one.batch == two.batch == three.batch
        assert two.parameters < one.parameters
        assert three.parameters == pytest.approx(one.parameters, rel=0.02)


def test_a_matched_twin_that_does_not_match_is_told(cubes):
    (remark,) = {
        remark for remark in cubes.plan(mixer="segmamba", network="umamba_enc", twin=True).remarks if "2d" in remark
    }
    assert "umambaEncSegmambaMatched8GPlans" in remark


def test_spacing_order_and_data_are_those_of_nnunet(made_up):
    ours, stock = plans_of(made_up, "umamba_enc"), plans_of(made_up, "nnunet")
    shared = ("transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel")
    assert {key: ours[key] for key in shared} == {key: stock[key] for key in shared}
    differ = {"architecture", "patch_size", "batch_size", "batch_dice", "median_image_size_in_voxels"}
    for name in ("2d", "3d_fullres"):
        if name in stock["configurations"]:
            one, two = (
                {key: value for key, value in plans["configurations"][name].items() if key not in differ}
                for plans in (ours, stock)
            )
            assert one == two


@pytest.mark.parametrize("shape", ["small", "flat"])
def test_without_mamba_a_patch_that_memory_does_not_limit_is_that_of_nnunet(tmp_path, shape):
    made_up = make_up(tmp_path, *SHAPES[shape])
    ours, stock = (
        plans_of(made_up, name, **options)["configurations"]
        for name, options in (("umamba_bot", {"mixer": "none", "vram_gb": 40}), ("resenc_xl", {}))
    )
    for name, entry in stock.items():
        assert ours[name]["patch_size"] == entry["patch_size"]
        for key in ("strides", "kernel_sizes", "features_per_stage"):
            assert ours[name]["architecture"]["arch_kwargs"][key] == entry["architecture"]["arch_kwargs"][key]


@pytest.mark.parametrize("name", ["nnunet", "resenc_m", "resenc_l", "resenc_xl"])
def test_baselines_are_those_of_the_stock_command(cubes, name):
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    from umamba_seg.planning.baselines import BASELINES

    with Workspace.below(cubes.workspace).active():
        plan_experiment_dataset(901, BASELINES[name].load_planner())
    stock = json.loads((cubes.preprocessed / f"{BASELINES[name].plans_name}.json").read_text())

    assert plans_of(cubes, name) == stock


def test_a_baseline_for_other_memory_has_it_in_its_name(cubes):
    assert plans_of(cubes, "resenc_m", vram_gb=12)["plans_name"] == "nnUNetResEncUNetM12GPlans"


@pytest.mark.parametrize(("name", "gb"), [("nnunet", 8), ("resenc_m", 8)])
def test_what_a_baseline_is_made_for_is_what_it_is_estimated_at(large, name, gb):
    entry = configurations(large.plan(network=name, configurations=["3d_fullres"]))["3d_fullres"]
    assert 0.6 * gb < entry.memory_gb < 1.1 * gb


def test_a_patch_and_a_batch_as_asked(cubes):
    result = cubes.plan(network="segmamba", patch=(64, 48, 32), batch=3, configurations=["3d_fullres"])
    entry = configurations(result)["3d_fullres"]
    assert (entry.patch, entry.batch, entry.why) == ((64, 48, 32), 3, "patch as asked, batch as asked")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"network": "resenc_m", "mixer": "axes"}, "--mixer"),
        ({"network": "resenc_m", "twin": True}, "--twin"),
        ({"network": "resenc_m", "based_on": "nnUNetPlans"}, "--from"),
        ({"based_on": "nnUNetPlans", "vram_gb": 8}, "--vram"),
        ({"mixer": "none", "twin": True}, "--twin"),
        ({"plans_name": "a__b"}, "--plans-name"),
        ({"vram_gb": -1}, "--vram"),
        ({"patch": (16,)}, "--patch"),
        ({"processes": 0}, "-j"),
        ({"network": "unet"}, "--network"),
        ({"configurations": ["4d"]}, "-c"),
    ],
)
def test_options_that_make_no_sense_name_themselves(cubes, options, where):
    with pytest.raises(UsageError) as fault:
        cubes.plan(**options)
    assert where in fault.value.where


def test_a_dry_run_leaves_no_file_behind(cubes):
    before = {path: path.stat().st_mtime_ns for path in cubes.workspace.rglob("*")}
    cubes.plan(network="umamba_enc", twin=True)
    assert {path: path.stat().st_mtime_ns for path in cubes.workspace.rglob("*")} == before


def test_the_python_function_is_that_of_the_package():
    import umamba_seg

    assert umamba_seg.plan is plan

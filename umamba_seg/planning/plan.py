"""`umamba plan`: fingerprint, plans of a network and of its twin, preprocessed data; each only where missing."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umamba_seg.device import cores
from umamba_seg.errors import DataError, UsageError, unknown
from umamba_seg.files import write_text
from umamba_seg.networks import registry
from umamba_seg.networks.architecture import with_mixer
from umamba_seg.networks.registry import NetworkRecord
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.workspace import Dataset, channel_names, find_dataset, locate, read_json

FINGERPRINT = "dataset_fingerprint.json"
TWIN_MIXER = "none"


@dataclass(frozen=True, slots=True)
class PlannedConfiguration:
    """What was chosen for one configuration, and why."""

    name: str
    patch: tuple[int, ...]
    batch: int
    spacing: tuple[float, ...]
    stages: int
    parameters: int
    memory_gb: float
    why: str


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    """One plans file."""

    plans_name: str
    file: Path
    network: str
    mixer: str
    state: str
    configurations: tuple[PlannedConfiguration, ...]


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What `plan` wrote or found."""

    dataset: str
    networks: tuple[PlannedNetwork, ...]
    steps: dict[str, str]


def plan(
    dataset: str,
    *,
    network: str = "umamba_bot",
    mixer: str | None = None,
    vram_gb: float = 8,
    configurations: Sequence[str] = (),
    twin: bool = False,
    patch: Sequence[int] | None = None,
    batch: int | None = None,
    features: int = 32,
    plans_name: str | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    workspace: Path | None = None,
    report: OnProgress = ignore,
) -> PlanResult:
    """Plan a network for a data set in nnU-Net's way and preprocess the data.

    Args:
        dataset: Id, name or folder of the data set.
        network: See `umamba networks`.
        mixer: What fills the network's slots, that of its paper unless given; `none` is the no-Mamba twin.
        vram_gb: Memory of the GPU to plan for.
        configurations: Which to preprocess, of `2d`, `3d_fullres`, `3d_lowres`; empty means all that are planned.
        twin: Also write the plans of the no-Mamba twin, with the same patch, batch and data.
        patch: Patch size instead of the planned one, for configurations of as many axes.
        batch: Batch size instead of the planned one.
        features: Channels of the first stage.
        plans_name: Instead of the name made of network, mixer and memory.
        processes: How many cases are worked on at once; by default one for each core, at most 8.
        overwrite: Replace plans and preprocessed data that are there and differ.
        dry_run: Plan without leaving a file behind.
        workspace: Where the three folders are when nnU-Net's variables are not set.
        report: Told how far it is.
    """
    info = registry.find(network)
    mixer = mixer or info.mixer
    _check_numbers(vram_gb, patch, batch)
    place = locate(workspace)
    found = find_dataset(dataset, place)
    processes = processes or min(8, cores())
    wanted_name = plans_name or default_plans_name(info, mixer, vram_gb)
    steps: dict[str, str] = {}
    with _folders(found, dry_run) as data:
        steps["fingerprint"] = _fingerprint(data, processes, report)
        report(Progress("plan", 0, 1, "plans"))
        plans = _plans(data, info, mixer, vram_gb, wanted_name, patch, batch, features)
        chosen = _chosen_configurations(plans, configurations, patch)
        variants = [(plans, mixer)]
        if twin and mixer != TWIN_MIXER:
            variants.append((twin_of(plans, _twin_name(info, vram_gb, plans_name)), TWIN_MIXER))
        files = [data.preprocessed / f"{variant['plans_name']}.json" for variant, _ in variants]
        states = [_write(variant, file, overwrite) for (variant, _), file in zip(variants, files, strict=True)]
        report(Progress("plan", 1, 1, "plans"))
        for name in chosen if not dry_run else ():
            steps[f"preprocess {name}"] = _preprocess(data, plans, name, processes, overwrite, report)
    networks = tuple(
        PlannedNetwork(
            variant["plans_name"],
            found.preprocessed / file.name,
            info.name,
            variant_mixer,
            "dry run" if dry_run else state,
            tuple(_describe(variant, name, data.description(), vram_gb, patch, batch) for name in chosen),
        )
        for (variant, variant_mixer), file, state in zip(variants, files, states, strict=True)
    )
    return PlanResult(found.name, networks, steps)


def default_plans_name(network: NetworkRecord, mixer: str, vram_gb: float) -> str:
    """`umambaEnc8GPlans`, `umambaEncNoMamba8GPlans`, `umambaEncAxes24GPlans`: no budget overwrites another's plans."""
    short = network.name.removeprefix("umamba_")
    parts = {network.mixer: "", TWIN_MIXER: "NoMamba"}.get(mixer, _camel(mixer))
    return f"umamba{_camel(short)}{parts}{vram_gb:g}GPlans"


def _twin_name(network: NetworkRecord, vram_gb: float, plans_name: str | None) -> str:
    if plans_name is None:
        return default_plans_name(network, TWIN_MIXER, vram_gb)
    return f"{plans_name.removesuffix('Plans')}NoMambaPlans"


def _camel(words: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in words.split("_"))


def twin_of(plans: dict[str, Any], plans_name: str) -> dict[str, Any]:
    """The same plans with nothing in the network's slots: same patch, batch, spacing and data."""
    configurations = {
        name: {**entry, "architecture": with_mixer(entry["architecture"], TWIN_MIXER)}
        if "architecture" in entry
        else entry
        for name, entry in plans["configurations"].items()
    }
    return {**plans, "plans_name": plans_name, "configurations": configurations}


def _check_numbers(vram_gb: float, patch: Sequence[int] | None, batch: int | None) -> None:
    if not vram_gb > 0:
        raise UsageError(
            f"the memory to plan for must be positive, got {vram_gb:g} GB", where="--vram", code="bad-number"
        )
    if batch is not None and batch < 1:
        raise UsageError(f"a batch has at least one sample, got {batch}", where="--batch", code="bad-number")
    if patch is not None and (len(patch) not in (2, 3) or min(patch) < 1):
        what = f"a patch has two or three positive sizes such as 96,160,160; got {','.join(map(str, patch))}"
        raise UsageError(what, where="--patch", code="bad-number")


@contextmanager
def _folders(dataset: Dataset, dry_run: bool) -> Iterator[Dataset]:
    """The data set with its folders in place; for a dry run with a preprocessed folder that vanishes afterwards."""
    with ExitStack() as stack:
        place = dataset.workspace
        if dry_run:
            place = replace(place, preprocessed=Path(stack.enter_context(TemporaryDirectory())))
            if (dataset.preprocessed / FINGERPRINT).is_file():
                (place.preprocessed / dataset.name).mkdir()
                shutil.copy(dataset.preprocessed / FINGERPRINT, place.preprocessed / dataset.name)
        else:
            place.make()
        stack.enter_context(place.active())
        yield Dataset(dataset.name, place)


def _fingerprint(dataset: Dataset, processes: int, report: OnProgress) -> str:
    """Extract the fingerprint unless one of as many cases is there."""
    from umamba_seg.planning.preprocess import training_cases

    if not dataset.raw.is_dir():
        how = [f"copy or link the raw data to {dataset.raw}"]
        raise DataError(
            "the raw data of this data set are not there", where=str(dataset.raw), how=how, code="no-raw-data"
        )
    cases = training_cases(dataset)
    file = dataset.preprocessed / FINGERPRINT
    if file.is_file() and len(_list(read_json(file).get("spacings"))) == len(cases):
        return "reused"
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    report(Progress("fingerprint", 0, len(cases), "cases"))
    try:
        extract_fingerprint_dataset(
            dataset.id,
            num_processes=processes,
            check_dataset_integrity=True,
            clean=True,
            verbose=False,
            show_progress_bar=False,
        )
    except (RuntimeError, ValueError, AssertionError, OSError) as fault:
        reason = str(fault).strip().splitlines()[-1] if str(fault).strip() else type(fault).__name__
        how = ["-v shows what nnU-Net found, case by case"]
        raise DataError(
            f"nnU-Net cannot use the data: {reason}", where=dataset.name, how=how, code="bad-data"
        ) from fault
    report(Progress("fingerprint", len(cases), len(cases), "cases"))
    return "made"


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _plans(
    dataset: Dataset,
    network: NetworkRecord,
    mixer: str,
    vram_gb: float,
    plans_name: str,
    patch: Sequence[int] | None,
    batch: int | None,
    features: int,
) -> dict[str, Any]:
    from umamba_seg.planning.planner import UMambaPlanner

    planner = UMambaPlanner(
        dataset.name,
        network=network,
        mixer=mixer,
        vram_gb=vram_gb,
        plans_name=plans_name,
        patch=patch,
        batch=batch,
        features=features,
    )
    plans: dict[str, Any] = planner.plan_experiment()
    return json.loads(json.dumps(plans))  # tuples become lists, as they will when the file is read


def _chosen_configurations(plans: dict[str, Any], wanted: Sequence[str], patch: Sequence[int] | None) -> list[str]:
    planned = [name for name, entry in plans["configurations"].items() if "architecture" in entry]
    for name in wanted:
        if name not in planned:
            raise unknown("configuration", name, planned, where="-c")
    chosen = list(wanted) or planned
    if patch is not None and not any(len(patch) == len(plans["configurations"][name]["patch_size"]) for name in chosen):
        what = f"a patch of {len(patch)} sizes fits none of {', '.join(chosen)}"
        raise UsageError(
            what, where="--patch", how=["give one size per axis: two for 2d, three for 3d"], code="patch-does-not-fit"
        )
    return chosen


def _write(plans: dict[str, Any], file: Path, overwrite: bool) -> str:
    """Write plans unless the same are there; configurations a user added to the file stay."""
    if file.is_file():
        old: dict[str, Any] = read_json(file)
        added = {name: entry for name, entry in old["configurations"].items() if name not in plans["configurations"]}
        plans = {**plans, "configurations": {**plans["configurations"], **added}}
        if plans == old:
            return "unchanged"
        if not overwrite:
            how = [
                "--plans-name NAME keeps both",
                "--overwrite replaces it; models trained with the old plans keep their own copy",
            ]
            raise UsageError("plans of this name are there and differ", where=str(file), how=how, code="plans-exist")
    write_text(file, json.dumps(plans, indent=4))
    return "written"


def _preprocess(
    dataset: Dataset, plans: dict[str, Any], configuration: str, processes: int, overwrite: bool, report: OnProgress
) -> str:
    from umamba_seg.planning.preprocess import preprocess

    folder = dataset.preprocessed / plans["configurations"][configuration]["data_identifier"]
    return preprocess(
        dataset, plans["plans_name"], configuration, folder, processes=processes, overwrite=overwrite, report=report
    )


def _describe(
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, object],
    vram_gb: float,
    patch: Sequence[int] | None,
    batch: int | None,
) -> PlannedConfiguration:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from umamba_seg.planning.planner import build_without_memory, estimated_gb

    entry = plans["configurations"][configuration]
    heads = PlansManager(plans).get_label_manager(dataset_json).num_segmentation_heads
    network = build_without_memory(entry["architecture"], len(channel_names(dataset_json)) or 1, heads)
    count: int = network.compute_conv_feature_map_size(entry["patch_size"])
    dims = len(entry["patch_size"])
    return PlannedConfiguration(
        configuration,
        tuple(entry["patch_size"]),
        entry["batch_size"],
        tuple(entry["spacing"]),
        len(entry["architecture"]["arch_kwargs"]["strides"]),
        sum(parameter.numel() for parameter in network.parameters()),
        estimated_gb(count, entry["batch_size"], dims),
        _why(entry, vram_gb, patch is not None and len(patch) == dims, batch is not None),
    )


def _why(entry: dict[str, Any], vram_gb: float, patch_was_given: bool, batch_was_given: bool) -> str:
    median = entry["median_image_size_in_voxels"]
    if patch_was_given:
        patch = "patch as asked"
    elif all(size >= whole for size, whole in zip(entry["patch_size"], median, strict=True)):
        patch = "patch covers the median image"
    else:
        patch = f"largest patch for {vram_gb:g} GB"
    batch = (
        "batch as asked"
        if batch_was_given
        else "smallest batch"
        if entry["batch_size"] == 2
        else "batch fills the memory or 5 % of the data"
    )
    return f"{patch}, {batch}"

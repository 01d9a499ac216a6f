"""`umamba plan`: fingerprint, plans of a network and of its twins, preprocessed data; each only where missing."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from umamba_seg.device import choose_device, cores
from umamba_seg.errors import UsageError, unknown
from umamba_seg.planning import fingerprint, provenance
from umamba_seg.planning.cases import training_cases
from umamba_seg.planning.estimate import MOST_PROCESSES
from umamba_seg.planning.names import MATCHED, TWINS, twin_plans_name
from umamba_seg.planning.preprocess import Preprocessed, check_processes, prepare
from umamba_seg.planning.request import Request, make_plans, request_for
from umamba_seg.planning.store import plans_file, read_plans, write_plans
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.workspace import Dataset, find_dataset, locate

if TYPE_CHECKING:
    from umamba_seg.planning.describe import PlannedNetwork

MATCHED_WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What `plan` wrote or found.

    Args:
        dataset: Its name.
        networks: The network asked for, then its twins.
        steps: What was done for the fingerprint and for each configuration's data.
        data: The preprocessed data, and what they take.
        remarks: What the reader should know although nothing is wrong.
    """

    dataset: str
    networks: "tuple[PlannedNetwork, ...]"
    steps: dict[str, str]
    data: tuple[Preprocessed, ...] = ()
    remarks: tuple[str, ...] = ()


def plan(
    dataset: str,
    *,
    network: str = "umamba_bot",
    mixer: str | None = None,
    vram_gb: float | None = None,
    configurations: Sequence[str] = (),
    based_on: str | None = None,
    twin: bool = False,
    patch: Sequence[int] | None = None,
    batch: int | None = None,
    features: int = 32,
    plans_name: str | None = None,
    processes: int | None = None,
    probe: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    workspace: Path | None = None,
    report: OnProgress = ignore,
) -> PlanResult:
    """Plan a network for a data set in nnU-Net's way and preprocess the data.

    Args:
        dataset: Id, name or folder of the data set.
        network: See `umamba networks`; or `nnunet`, `resenc_m`, `resenc_l`, `resenc_xl`, planned by nnU-Net itself.
        mixer: What fills the network's slots, that of its paper unless given; `none` is the no-Mamba twin.
        vram_gb: Memory of the GPU to plan for; 8, or what the preset of nnU-Net is for.
        configurations: Which to preprocess, of those that are planned; empty means all.
        based_on: Name or file of plans whose network is replaced and of which all else is kept.
        twin: Also write the plans of the no-Mamba twin and of the parameter-matched one: same patch, batch and data.
        patch: Patch size instead of the planned one, for configurations of as many axes except 3d_lowres.
        batch: Batch size instead of the planned one.
        features: Channels of the first stage.
        plans_name: Instead of the name made of network, mixer and memory.
        processes: How many cases are worked on at once; by default as many as cores and memory allow, at most 8.
        probe: Measure memory and time of training steps on this device.
        device: Where to measure: `auto`, `cpu` or `cuda`.
        overwrite: Replace plans and preprocessed data that are there and differ.
        dry_run: Plan without leaving a file behind.
        workspace: Where the three folders are when nnU-Net's variables are not set.
        report: Told how far it is.
    """
    request = request_for(
        network,
        mixer=mixer,
        vram_gb=vram_gb,
        plans_name=plans_name,
        patch=patch,
        batch=batch,
        features=features,
        based_on=based_on,
        twin=twin,
    )
    check_processes(processes)
    measured_on = choose_device(device) if probe else None
    found = find_dataset(dataset, locate(workspace))
    steps: dict[str, str] = {}
    with _folders(found, dry_run) as data:
        source = read_plans(based_on, found, where="--from") if based_on else None
        extractors = processes or min(MOST_PROCESSES, cores())
        steps["fingerprint"] = fingerprint.fingerprint(data, training_cases(data), extractors, report)
        report(Progress("plan", 0, 1, "plans"))
        plans = make_plans(request, data, source)
        chosen = _chosen_configurations(plans, configurations, patch)
        networks = [
            _described(request, variant, variant_mixer, chosen, found)
            for variant, variant_mixer in _with_twins(plans, request, twin)
        ]
        if not dry_run:
            networks = [network.written(overwrite) for network in networks]
        report(Progress("plan", 1, 1, "plans"))
        made = prepare(
            found,
            plans,
            chosen,
            processes=processes,
            replace=overwrite,
            dry_run=dry_run,
            fingerprint_from=data,
            report=report,
        )
        if measured_on is not None:
            networks = [network.measured(found, measured_on, report) for network in networks]
    steps |= {f"preprocess {entry.configuration}": entry.state for entry in made}
    result = tuple(network.planned for network in networks)
    return PlanResult(found.name, result, steps, made, tuple(_remarks(result, made)))


@dataclass(frozen=True, slots=True)
class _Variant:
    """Plans and what is told of them."""

    plans: dict[str, Any]
    planned: "PlannedNetwork"

    def written(self, overwrite: bool) -> "_Variant":
        state = write_plans(self.plans, self.planned.file, overwrite=overwrite)
        return replace(self, planned=replace(self.planned, state=state))

    def measured(self, dataset: Dataset, device: str, report: OnProgress) -> "_Variant":
        from umamba_seg.planning.probe import probe

        entries = tuple(
            replace(entry, measured=probe(self.plans, entry.name, dataset.description(), device, report))
            for entry in self.planned.configurations
        )
        return replace(self, planned=replace(self.planned, configurations=entries))


def _with_twins(plans: dict[str, Any], request: Request, twin: bool) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The plans with their mixer, then those of the twins that differ from them."""
    from umamba_seg.planning.swap import twin_of

    yield plans, request.mixer
    for mixer in TWINS if twin else ():
        if mixer != request.mixer:
            yield twin_of(plans, mixer, twin_plans_name(request.plans_name, mixer)), mixer


def _described(
    request: Request, plans: dict[str, Any], mixer: str | None, chosen: Sequence[str], dataset: Dataset
) -> _Variant:
    from umamba_seg.planning.describe import PlannedNetwork, Reasons, describe

    reasons = Reasons(request.vram_gb, request.patch, request.batch, request.source, request.data_share)
    entries = tuple(describe(plans, name, dataset.description(), request.budget, reasons) for name in chosen)
    file = plans_file(dataset, plans["plans_name"])
    return _Variant(plans, PlannedNetwork(plans["plans_name"], file, request.network.name, mixer, "dry run", entries))


@contextmanager
def _folders(dataset: Dataset, dry_run: bool) -> Iterator[Dataset]:
    """The data set with its folders in place; for a dry run with a preprocessed folder that vanishes afterwards."""
    with ExitStack() as stack:
        place = dataset.workspace
        if dry_run:
            place = replace(place, preprocessed=Path(stack.enter_context(TemporaryDirectory())))
            (place.preprocessed / dataset.name).mkdir()
            for name in (fingerprint.FILE, provenance.FILE):
                if (dataset.preprocessed / name).is_file():
                    shutil.copy2(dataset.preprocessed / name, place.preprocessed / dataset.name)
        else:
            place.make()
        stack.enter_context(place.active())
        yield Dataset(dataset.name, place)


def _chosen_configurations(plans: dict[str, Any], wanted: Sequence[str], patch: Sequence[int] | None) -> list[str]:
    planned = list(plans["configurations"])
    for name in wanted:
        if name not in planned:
            raise unknown("configuration", name, planned, where="-c")
    chosen = list(wanted) or planned
    sizes = [plans["configurations"][name].get("patch_size", ()) for name in chosen]
    if patch is not None and not any(list(size) == list(patch) for size in sizes):
        what = f"a patch of {len(patch)} sizes fits none of {', '.join(chosen)}"
        raise UsageError(
            what, where="--patch", how=["give one size per axis: two for 2d, three for 3d"], code="patch-does-not-fit"
        )
    return chosen


def _remarks(networks: "Sequence[PlannedNetwork]", data: Sequence[Preprocessed]) -> Iterator[str]:
    for entry in data:
        yield from (f"{entry.folder.name}: {remark}" for remark in entry.remarks)
        yield from entry.estimate.warnings()
    asked = networks[0].configurations
    for other in networks[1:]:
        if other.mixer != MATCHED:
            continue
        for one, two in zip(asked, other.configurations, strict=True):
            apart = two.parameters / one.parameters - 1
            if abs(apart) > MATCHED_WITHIN:
                yield (
                    f"{other.plans_name} has {abs(apart):.1%} {'more' if apart > 0 else 'fewer'} parameters in "
                    f"{one.name} than {networks[0].plans_name}: it is matched to the mixer of the paper"
                )

"""What is to be planned: options that make sense together, and the plans that follow from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umamba_seg.errors import UsageError
from umamba_seg.networks.registry import NetworkRecord
from umamba_seg.planning import baselines
from umamba_seg.planning.baselines import Baseline
from umamba_seg.planning.budget import RESIDUAL, Budget
from umamba_seg.planning.names import NO_MAMBA, check_plans_name, default_plans_name, swapped_plans_name
from umamba_seg.workspace import Dataset

DEFAULT_GB = 8.0
DATA_SHARE = 0.05  # that of nnU-Net's default planner, which ours are made of


@dataclass(frozen=True, slots=True)
class Request:
    """One network for one data set.

    Args:
        network: One of ours, or one of nnU-Net's.
        mixer: What fills the slots of ours.
        vram_gb: GPU memory to plan for.
        plans_name: Name of the plans.
        patch: As asked for.
        batch: As asked for.
        features: Channels of the first stage.
        source: Name of the plans that all but the network is taken from.
    """

    network: NetworkRecord | Baseline
    mixer: str | None
    vram_gb: float
    plans_name: str
    patch: Sequence[int] | None
    batch: int | None
    features: int
    source: str | None

    @property
    def budget(self) -> Budget:
        """How elements become memory."""
        return self.network.budget if isinstance(self.network, Baseline) else RESIDUAL

    @property
    def data_share(self) -> float:
        """How much of the data a batch may be."""
        return self.network.data_share if isinstance(self.network, Baseline) else DATA_SHARE


def request_for(
    name: str,
    *,
    mixer: str | None,
    vram_gb: float | None,
    plans_name: str | None,
    patch: Sequence[int] | None,
    batch: int | None,
    features: int,
    based_on: str | None,
    twin: bool,
) -> Request:
    """Check options against each other, and fill in what they leave open.

    Raises:
        UsageError: A value makes no sense, or two options contradict each other.
    """
    _check_numbers(vram_gb, patch, batch)
    network = baselines.find(name)
    source = None if based_on is None else Path(based_on).name.removesuffix(".json")
    if source is not None:
        _refuse("--from keeps what it says", {"--vram": vram_gb, "--patch": patch, "--batch": batch})
    if isinstance(network, Baseline):
        options = {"--mixer": mixer, "--twin": twin or None, "--from": based_on, "--patch": patch, "--batch": batch}
        _refuse(f"nnU-Net itself plans {name} and has no such option", options)
        gb = vram_gb or network.vram_gb
        default = network.name_of_plans(gb)
    else:
        mixer, gb = mixer or network.mixer, vram_gb or DEFAULT_GB
        default = (
            default_plans_name(network, mixer, gb) if source is None else swapped_plans_name(network, mixer, source)
        )
    if twin and mixer == NO_MAMBA:
        how = ["leave --mixer out to plan the network and its twins"]
        raise UsageError("--mixer none is the no-Mamba twin itself", where="--twin", how=how, code="contradiction")
    check_plans_name(plans_name or default)
    return Request(network, mixer, gb, plans_name or default, patch, batch, features, source)


def make_plans(request: Request, dataset: Dataset, source: dict[str, Any] | None) -> dict[str, Any]:
    """The plans, as they will be when their file is read.

    Args:
        request: What to plan.
        dataset: For which data; its fingerprint is there.
        source: The plans that `request.source` names.
    """
    made = _swapped(request, dataset, source) if source is not None else _planned(request, dataset)
    plans: dict[str, Any] = json.loads(json.dumps(made))
    return plans


def _planned(request: Request, dataset: Dataset) -> dict[str, Any]:
    from umamba_seg.planning.planner import UMambaPlanner, baseline_planner

    planner: Any
    if isinstance(request.network, Baseline):
        planner = baseline_planner(
            request.network, dataset.name, vram_gb=request.vram_gb, plans_name=request.plans_name
        )
    else:
        planner = UMambaPlanner(
            dataset.name,
            network=request.network,
            mixer=request.mixer or request.network.mixer,
            vram_gb=request.vram_gb,
            plans_name=request.plans_name,
            patch=request.patch,
            batch=request.batch,
            features=request.features,
        )
    plans: dict[str, Any] = planner.plan_experiment()
    return plans


def _swapped(request: Request, dataset: Dataset, source: dict[str, Any]) -> dict[str, Any]:
    from umamba_seg.planning.swap import swapped

    assert not isinstance(request.network, Baseline)
    if source["dataset_name"] != dataset.name:
        what = f"these plans are for {source['dataset_name']}, whose spacing and intensities are not {dataset.name}'s"
        raise UsageError(what, where="--from", code="plans-of-other-data")
    return swapped(source, request.network, request.mixer or request.network.mixer, request.plans_name)


def _refuse(reason: str, options: Mapping[str, object]) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(reason, where=", ".join(given), how=[f"leave out {' and '.join(given)}"], code="contradiction")


def _check_numbers(vram_gb: float | None, patch: Sequence[int] | None, batch: int | None) -> None:
    if vram_gb is not None and not vram_gb > 0:
        raise UsageError(
            f"the memory to plan for must be positive, got {vram_gb:g} GB", where="--vram", code="bad-number"
        )
    if batch is not None and batch < 1:
        raise UsageError(f"a batch has at least one sample, got {batch}", where="--batch", code="bad-number")
    if patch is not None and (len(patch) not in (2, 3) or min(patch) < 1):
        what = f"a patch has two or three positive sizes such as 96,160,160; got {','.join(map(str, patch))}"
        raise UsageError(what, where="--patch", code="bad-number")

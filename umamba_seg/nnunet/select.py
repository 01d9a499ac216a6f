"""`umamba select`: which of a data set's models is best on its own validation, by nnU-Net's comparison.

nnU-Net reads no more than label maps, probabilities and plans from the results, so that it compares networks it has
never heard of. What it would stop at is looked for before, and told with the command that mends it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from umamba_seg.device import cores, set_import_time_variables
from umamba_seg.errors import DataError, ModelError
from umamba_seg.files import told_when_full
from umamba_seg.workspace import Dataset, find_dataset, locate, read_json

FINAL = "checkpoint_final.pth"
HOST_FOLDS = 5
MOST_WAYS = 3  # that an error names
_LENGTH = re.compile(
    r"_(?:e(?P<epochs>\d+))?(?:i(?P<iterations>\d+))?$"
)  # what `umamba train` adds to a trainer's name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A results folder, TRAINER__PLANS__CONFIGURATION."""

    folder: Path

    @property
    def parts(self) -> tuple[str, str, str]:
        """Trainer, plans and configuration."""
        trainer, plans, configuration = self.folder.name.split("__")
        return trainer, plans, configuration

    @property
    def trained(self) -> list[int]:
        """The numbered folds that are."""
        names = (file.parent.name.removeprefix("fold_") for file in self.folder.glob(f"fold_*/{FINAL}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def validation(self, fold: int) -> Path:
        """Where the fold's predictions are."""
        return self.folder / f"fold_{fold}/validation"

    def command(self, dataset: Dataset, folds: Sequence[int]) -> str:
        """The line that trains folds, or validates again those that are trained."""
        trainer, plans, configuration = self.parts
        length = _LENGTH.search(trainer)
        name = trainer[: length.start()] if length else trainer
        words = ["umamba train", str(dataset.id), configuration, *map(str, folds), "-p", plans]
        words += ["-tr", name] if name != "nnUNetTrainer" else []
        for option in ("epochs", "iterations") if length else ():
            words += [f"--{option}", length[option]] if length and length[option] else []
        return " ".join([*words, "--npz"])


@dataclass(frozen=True, slots=True)
class Selection:
    """What was found best.

    Args:
        dice: Mean foreground Dice over all validation cases, of each model and each ensemble of two.
        best: The models to predict with; two for an ensemble.
        folds: On which they were compared.
        dice_after: Of the best, with postprocessing.
        steps: What postprocessing does, in words; empty where nothing helps.
        postprocessing: nnU-Net's file of it.
        commands: The lines that segment new images so.
        instructions: The same for stock commands, as nnU-Net writes it.
    """

    dataset: str
    folds: tuple[int, ...]
    dice: Mapping[str, float]
    best: tuple[Path, ...]
    dice_before: float
    dice_after: float
    steps: tuple[str, ...]
    postprocessing: Path
    commands: tuple[str, ...]
    instructions: Path


def select(
    dataset: str,
    *,
    plans: Sequence[str] = (),
    configurations: Sequence[str] = (),
    trainers: Sequence[str] = (),
    folds: Sequence[int] = (),
    ensemble: bool = False,
    processes: int | None = None,
    workspace: Path | None = None,
) -> Selection:
    """Compare trained models by cross-validation, and find the postprocessing of the best.

    Args:
        dataset: Id, name or folder of the data set.
        plans: Which to compare; all that are trained unless given. Each must be there.
        configurations: Likewise.
        trainers: Likewise, as the results folders name them: `nnUNetTrainer_e250`.
        folds: On which; all of the data set's split unless given.
        ensemble: Whether also to average each two, which takes the probabilities of `umamba train --npz`.
        processes: How many cases to work on at once.
        workspace: Where the three folders are when nnU-Net's variables are not set.

    Raises:
        ModelError: A model, a fold or probabilities are missing.
    """
    set_import_time_variables()
    place = locate(workspace)
    found = find_dataset(dataset, place)
    candidates = _candidates(found, trainers, plans, configurations)
    chosen = tuple(sorted(set(folds))) or tuple(range(_number_of_folds(found)))
    has_ensembles = ensemble and len(candidates) > 1
    _check_trained(found, candidates, chosen)
    if has_ensembles:
        _check_probabilities(found, candidates, chosen)
    _check_cases(candidates, chosen, are_averaged=has_ensembles)
    _check_references(found, candidates)
    with place.active(), told_when_full(found.results):
        from nnunetv2.evaluation.find_best_configuration import find_best_configuration

        models = [dict(zip(("trainer", "plans", "configuration"), c.parts, strict=True)) for c in candidates]
        answer = find_best_configuration(
            found.name,
            models,
            allow_ensembling=has_ensembles,
            num_processes=processes or min(8, cores()),
            folds=chosen,
        )
    return _selection(found, chosen, answer)


def _candidates(
    dataset: Dataset, trainers: Sequence[str], plans: Sequence[str], configurations: Sequence[str]
) -> list[Candidate]:
    """The results folders that fit the names; what is asked for by name and is not there is an error."""
    wanted = (trainers, plans, configurations)
    folders = sorted(path for path in dataset.results.glob("*__*__*") if path.name.count("__") == 2 and path.is_dir())
    there = [Candidate(folder) for folder in folders]
    fitting = [c for c in there if all(not names or part in names for names, part in zip(wanted, c.parts, strict=True))]
    for asked in product(*(names or ("",) for names in wanted)):
        if any(all(name in ("", part) for name, part in zip(asked, c.parts, strict=True)) for c in fitting):
            continue
        what = " ".join(["there is no model", *filter(None, asked), "of", dataset.name])
        how = [f"train it with  umamba train {dataset.id} CONFIG FOLD… -p PLANS --npz"]
        if there:
            more = " …" if len(there) > MOST_WAYS else ""
            how.append("there are " + ", ".join(" ".join(c.parts) for c in there[:MOST_WAYS]) + more)
        raise ModelError(what, where=str(dataset.results), how=how, code="no-model")
    return fitting


def _number_of_folds(dataset: Dataset) -> int:
    file = dataset.preprocessed / "splits_final.json"
    return len(json.loads(file.read_bytes())) if file.is_file() else HOST_FOLDS


def _check_trained(dataset: Dataset, candidates: Sequence[Candidate], folds: Sequence[int]) -> None:
    if missing := _missing(candidates, folds, _is_validated):
        what = f"{_named(missing)} not trained and validated"
        how = [*_commands_that_make(missing, dataset), "or choose with -p, -c, -tr and -f"]
        raise ModelError(what, where=str(dataset.results), how=how, code="missing-fold")


def _check_probabilities(dataset: Dataset, candidates: Sequence[Candidate], folds: Sequence[int]) -> None:
    if missing := _missing(candidates, folds, _has_probabilities):
        what = f"{_named(missing)} without .npz, which ensembles need"
        how = [*_commands_that_make(missing, dataset), "or leave --ensemble out"]
        raise ModelError(what, where=str(dataset.results), how=how, code="no-probabilities")


def _missing(
    candidates: Sequence[Candidate], folds: Sequence[int], has: Callable[[Candidate, int], bool]
) -> dict[Candidate, list[int]]:
    found = {candidate: [fold for fold in folds if not has(candidate, fold)] for candidate in candidates}
    return {candidate: gone for candidate, gone in found.items() if gone}


def _named(missing: Mapping[Candidate, Sequence[int]]) -> str:
    first, gone = next(iter(missing.items()))
    numbers = ", ".join(map(str, gone))
    subject = f"{'folds' if len(gone) > 1 else 'fold'} {numbers} of {first.folder.name}"
    if len(missing) > 1:
        return f"{subject}, and folds of {len(missing) - 1} more, are"
    return f"{subject} {'are' if len(gone) > 1 else 'is'}"


def _commands_that_make(missing: Mapping[Candidate, Sequence[int]], dataset: Dataset) -> list[str]:
    return [candidate.command(dataset, gone) for candidate, gone in list(missing.items())[:MOST_WAYS]]


def _is_validated(candidate: Candidate, fold: int) -> bool:
    return (candidate.validation(fold) / "summary.json").is_file()  # the last file that validation writes


def _has_probabilities(candidate: Candidate, fold: int) -> bool:
    """Of each case that was predicted, with the geometry that nnU-Net keeps beside."""
    cases = _cases(candidate, [fold])
    return all((candidate.validation(fold) / f"{case}{end}").is_file() for case in cases for end in (".npz", ".pkl"))


def _cases(candidate: Candidate, folds: Sequence[int]) -> dict[str, int]:
    """Cases that were predicted, and in which fold; of one in several folds the last."""
    ending = str(read_json(candidate.folder / "dataset.json")["file_ending"])
    return {
        file.name.removesuffix(ending): fold for fold in folds for file in candidate.validation(fold).glob(f"*{ending}")
    }


def _check_cases(candidates: Sequence[Candidate], folds: Sequence[int], *, are_averaged: bool) -> None:
    """Whether every case was predicted once, and every class can be judged; nnU-Net ends in an exception otherwise."""
    for candidate in candidates:
        for first, second in combinations(folds, 2):
            if both := sorted(_cases(candidate, [first]).keys() & _cases(candidate, [second]).keys()):
                what = f"folds {first} and {second} have both predicted {both[0]}: they were trained on other splits"
                how = ["train one of them again with --restart", "or choose folds with -f"]
                raise ModelError(what, where=str(candidate.folder), how=how, code="mixed-splits")
        if absent := _absent_classes(candidate, folds):
            what = f"class {absent[0]} is in no validation case and no prediction: it has no Dice"
            raise ModelError(what, where=str(candidate.folder), how=["compare on more folds"], code="absent-class")
    for one, other in combinations(candidates if are_averaged else (), 2):
        if odd := sorted(_cases(one, folds).keys() ^ _cases(other, folds).keys()):
            what = f"only one of {one.folder.name} and {other.folder.name} has predicted {odd[0]}"
            how = ["compare on all folds of the split", "or leave --ensemble out"]
            raise ModelError(what, where=str(one.folder.parent), how=how, code="mixed-splits")


def _absent_classes(candidate: Candidate, folds: Sequence[int]) -> list[str]:
    """Classes and regions whose Dice is nowhere defined."""
    summaries = [read_json(candidate.validation(fold) / "summary.json") for fold in folds]
    means: list[Mapping[str, Any]] = [summary["mean"] for summary in summaries]  # type: ignore[misc]
    return [
        name
        for name in means[0]
        if name != "0" and all(math.isnan(mean.get(name, {}).get("Dice", 0)) for mean in means)
    ]


def _check_references(dataset: Dataset, candidates: Sequence[Candidate]) -> None:
    needed = [dataset.preprocessed / f"{plans}.json" for _, plans, _ in (c.parts for c in candidates)]
    for path in [dataset.preprocessed / "gt_segmentations", *needed]:
        if not path.exists():
            how = [f"umamba plan {dataset.id}  and  umamba preprocess {dataset.id} -p PLANS  make what is missing"]
            raise DataError(
                f"{path.name} is needed and not there", where=str(path.parent), how=how, code="not-preprocessed"
            )


def _selection(dataset: Dataset, folds: tuple[int, ...], answer: Mapping[str, Any]) -> Selection:
    best = answer["best_model_or_ensemble"]
    models = tuple(
        dataset.results / f"{model['trainer']}__{model['plans_identifier']}__{model['configuration']}"
        for model in best["selected_model_or_models"]
    )
    postprocessing = Path(best["postprocessing_file"])
    steps = _steps(postprocessing.parent)
    return Selection(
        dataset=dataset.name,
        folds=folds,
        dice={name: float(dice) for name, dice in answer["all_results"].items()},
        best=models,
        dice_before=float(best["result_on_crossval_pre_pp"]),
        dice_after=float(best["result_on_crossval_post_pp"]),
        steps=steps,
        postprocessing=postprocessing,
        commands=_commands(models, folds, postprocessing.parent if steps else None),
        instructions=dataset.results / "inference_instructions.txt",
    )


def _steps(folder: Path) -> tuple[str, ...]:
    """nnU-Net knows one function, and tries it on everything together and on each class."""
    labels = read_json(folder / "dataset.json")["labels"]
    assert isinstance(labels, dict)
    names = {_key(value): name for name, value in labels.items()}
    told = read_json(folder / "postprocessing.json")["postprocessing_kwargs"]
    assert isinstance(told, list)
    wholes = [options["labels_or_regions"] for options in told]
    return tuple(
        f"keep the largest piece of {names.get(_key(whole), 'all classes together')}, remove the others"
        for whole in wholes
    )


def _key(whole: Any) -> tuple[int, ...]:
    return tuple(whole) if isinstance(whole, list) else (int(whole),)


def _commands(models: tuple[Path, ...], folds: tuple[int, ...], postprocessing: Path | None) -> tuple[str, ...]:
    """With `-f` only where others are trained than those that were compared: without it predict takes all."""
    last = "OUT" if postprocessing is None else "RAW"
    outs = [last] if len(models) == 1 else [f"OUT_{number}" for number in range(1, len(models) + 1)]
    lines = []
    for model, out in zip(models, outs, strict=True):
        is_all = tuple(Candidate(model).trained) == folds
        chosen = "" if is_all else "".join(f" -f {fold}" for fold in folds)
        more = " --save-probabilities" if len(models) > 1 else ""
        lines.append(f"umamba predict {model} -i IMAGES -o {out}{chosen}{more}")
    if len(models) > 1:
        lines.append(f"umamba ensemble {' '.join(outs)} -o {last} --model {models[0]}")
    if postprocessing is not None:
        lines.append(f"umamba postprocess RAW -o OUT --from {postprocessing}")
    return tuple(lines)

"""nnU-Net's preprocessing of the cases that lack it.

Upstream's own function deletes the folder it fills, and our plans share folders with nnU-Net's. So we call what it
calls for each case: what is there and current stays, a cut-off run is gone on with, and nothing is replaced unasked.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from umamba_seg.errors import DataError, Interrupted, ResourceError, UmambaError, UsageError, unknown
from umamba_seg.files import told_when_full
from umamba_seg.planning import fingerprint
from umamba_seg.planning.cases import training_cases
from umamba_seg.planning.estimate import DataEstimate, estimate
from umamba_seg.planning.pool import in_workers
from umamba_seg.planning.provenance import Findings, Notes, examine, named, note_on, settings_of
from umamba_seg.planning.store import read_plans
from umamba_seg.progress import OnProgress, Progress, ignore
from umamba_seg.workspace import Dataset, find_dataset, locate, read_json

_MOST_FAULTS_TOLD = 3
_MOST_COMPRESSION = 0.1  # of what an image takes, blosc2 leaves a tenth where most of it is empty


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """One configuration's data.

    Args:
        configuration: Its name.
        folder: Where the data are.
        state: What was done.
        made: How many cases were made, or would be.
        cases: How many there are.
        remarks: What the reader should know of data that were there.
        estimate: What it takes, or would.
    """

    configuration: str
    folder: Path
    state: Literal["made", "reused", "dry run"]
    made: int
    cases: int
    remarks: tuple[str, ...]
    estimate: DataEstimate

    def __str__(self) -> str:
        if self.state == "reused":
            return "up to date"
        return f"{'would make' if self.state == 'dry run' else 'made'} {self.made} of {self.cases} cases"


@dataclass(frozen=True, slots=True)
class PreprocessResult:
    """What `preprocess` made or found."""

    dataset: str
    plans_name: str
    configurations: tuple[Preprocessed, ...]


def preprocess(
    dataset: str,
    *,
    plans: str,
    configurations: Sequence[str] = (),
    processes: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    workspace: Path | None = None,
    report: OnProgress = ignore,
) -> PreprocessResult:
    """Preprocess what is missing of a data set.

    Args:
        dataset: Id, name or folder of the data set.
        plans: Name or file of the plans.
        configurations: Which of theirs; empty means all.
        processes: How many cases are worked on at once; by default as many as cores and memory allow, at most 8.
        overwrite: Make all cases anew.
        dry_run: Only say what would be done.
        workspace: Where the three folders are when nnU-Net's variables are not set.
        report: Told how far it is.
    """
    check_processes(processes)
    place = locate(workspace)
    found = find_dataset(dataset, place)
    chosen = read_plans(plans, found, where="-p")
    if chosen["dataset_name"] != found.name:
        what = f"these plans are for {chosen['dataset_name']}, not for {found.name}"
        raise UsageError(what, where="-p", code="plans-of-other-data")
    for name in configurations:
        if name not in chosen["configurations"]:
            raise unknown("configuration", name, chosen["configurations"], where="-c")
    with place.active():
        made = prepare(
            found,
            chosen,
            configurations or list(chosen["configurations"]),
            processes=processes,
            replace=overwrite,
            anew=overwrite,
            dry_run=dry_run,
            report=report,
        )
    return PreprocessResult(found.name, chosen["plans_name"], made)


def check_processes(processes: int | None) -> None:
    """Accept a number of processes that can work."""
    if processes is not None and processes < 1:
        raise UsageError(f"at least one case is worked on at once, got {processes}", where="-j", code="bad-number")


def prepare(
    dataset: Dataset,
    plans: dict[str, Any],
    configurations: Sequence[str],
    *,
    processes: int | None = None,
    replace: bool = False,
    anew: bool = False,
    dry_run: bool = False,
    fingerprint_from: Dataset | None = None,
    report: OnProgress = ignore,
) -> tuple[Preprocessed, ...]:
    """Preprocess configurations of plans, each folder once.

    Args:
        dataset: The data set, in nnU-Net's folders.
        plans: Its plans.
        configurations: Which of theirs.
        processes: How many cases are worked on at once.
        replace: Make anew what there is if it was made otherwise.
        anew: Make everything anew.
        dry_run: Only say what would be done.
        fingerprint_from: Where the fingerprint is, if not with the data.
        report: Told how far it is.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    cases = training_cases(dataset)
    sizes = _fingerprint(fingerprint_from or dataset)
    made: list[Preprocessed] = []
    for name in configurations:
        entry = PlansManager(plans).get_configuration(name).configuration
        folder = dataset.preprocessed / entry["data_identifier"]
        if any(folder == other.folder for other in made):  # a cascade's stages share their data
            continue
        job = _Job(dataset, folder, plans, name, entry, cases, dataset.description())
        findings = Findings(tuple(cases)) if anew else job.examine()
        missing = findings.missing
        if findings.against:
            if not replace and not dry_run:
                raise _made_otherwise(folder, findings.against)
            missing = tuple(cases)
        needed = estimate(
            name, entry, plans["transpose_forward"], sizes, folder, cases=len(missing), processes=processes
        )
        remarks = findings.remarks
        state: Literal["made", "reused", "dry run"] = "made" if missing else "reused"
        if dry_run:
            against = findings.against if replace else [f"needs --overwrite: {why}" for why in findings.against]
            state, remarks = "dry run", (*against, *remarks)
        elif missing:
            _check_disk(needed, folder)
            if anew or findings.against:
                shutil.rmtree(folder, ignore_errors=True)
            job.run(missing, needed, report)
        made.append(Preprocessed(name, folder, state, len(missing), len(cases), remarks, needed))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Job:
    """One configuration of one data set."""

    dataset: Dataset
    folder: Path
    plans: dict[str, Any]
    configuration: str
    entry: dict[str, Any]
    cases: Mapping[str, Mapping[str, Any]]
    dataset_json: dict[str, Any]

    def examine(self) -> Findings:
        notes = Notes.read(self.dataset)
        return examine(self.folder, self.cases, self.plans, self.entry, self.dataset_json, notes)

    def run(self, missing: Sequence[str], needed: DataEstimate, report: OnProgress) -> None:
        """Make cases; those that are done when something stops it stay, and are noted."""
        progress = Progress(f"preprocess {self.configuration}", 0, len(missing), "cases", needed.facts())
        report(progress)
        self.folder.mkdir(parents=True, exist_ok=True)
        notes = Notes.read(self.dataset)
        settings = settings_of(self.plans, self.entry, self.dataset_json)
        for case in missing:
            self._clear(case)
        seen = {case: notes.content_of(self.cases[case]) for case in missing}
        done = 0
        try:
            for case in self._made(missing, needed.processes):
                note_on(notes, self.folder, case, seen[case], settings)
                notes.write()  # now, so that a kill costs no more than the cases at work
                done += 1
                report(Progress(progress.step, done, len(missing), progress.unit))
        except KeyboardInterrupt:
            what = f"{done} of {len(missing)} cases are done and stay"
            how = ["run the same command to go on"]
            raise Interrupted(what, where=str(self.folder), how=how, code="interrupted") from None
        self._copy_labels()

    def _clear(self, case: str) -> None:
        """Remove what a run that was cut off left of a case."""
        for ending in (".b2nd", "_seg.b2nd", ".npz", ".npy", "_seg.npy", ".pkl"):
            (self.folder / f"{case}{ending}").unlink(missing_ok=True)

    def _made(self, missing: Sequence[str], processes: int) -> Iterator[str]:
        """The cases in the order in which they are done; faults of single ones are told when all others are."""
        faults: dict[str, BaseException] = {}
        yield from self._here(missing, faults) if processes == 1 else self._beside(missing, processes, faults)
        if faults:
            raise _faulty(self.folder, faults)

    def _here(self, missing: Sequence[str], faults: dict[str, BaseException]) -> Iterator[str]:
        for case in missing:
            try:
                _make(*self._work(case))
            except ResourceError:
                raise
            except Exception as fault:
                faults[case] = fault
            else:
                yield case

    def _beside(self, missing: Sequence[str], processes: int, faults: dict[str, BaseException]) -> Iterator[str]:
        work = {case: self._work(case) for case in missing}
        for case, fault in in_workers(_make, work, processes, doing="preprocessing", folder=self.folder):
            if isinstance(fault, ResourceError):
                raise fault
            if fault is not None:
                faults[case] = fault
            else:
                yield case

    def _work(self, case: str) -> tuple[dict[str, Any], str, dict[str, Any], Mapping[str, Any], str]:
        return self.plans, self.configuration, self.dataset_json, self.cases[case], str(self.folder / case)

    def _copy_labels(self) -> None:
        """Keep labels and description beside the data, as nnU-Net does for training without the raw data."""
        shutil.copy2(self.dataset.raw / "dataset.json", self.dataset.preprocessed / "dataset.json")
        folder = self.dataset.preprocessed / "gt_segmentations"
        folder.mkdir(exist_ok=True)
        for name, case in self.cases.items():
            label, copy = Path(case["label"]), folder / f"{name}{self.dataset_json['file_ending']}"
            if not copy.is_file() or copy.stat().st_mtime_ns < label.stat().st_mtime_ns:
                shutil.copy2(label, copy)


def _make(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], case: Mapping[str, Any], target: str
) -> None:
    """Preprocess one case as upstream does; runs in a process of its own, or in this one."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    preprocessor = chosen.preprocessor_class(verbose=False)
    try:
        with told_when_full(Path(target)):
            preprocessor.run_case_save(target, case["images"], case["label"], manager, chosen, dataset_json)
    except MemoryError as fault:
        how = ["a lower -j takes less memory"]
        raise ResourceError(f"not enough memory: {fault}", where=target, how=how, code="memory") from fault


def _fingerprint(dataset: Dataset) -> dict[str, Any]:
    file = dataset.preprocessed / fingerprint.FILE
    if not file.is_file():
        how = [f"umamba plan {dataset.id}  extracts it"]
        raise DataError("the data set has no fingerprint", where=str(file), how=how, code="no-fingerprint")
    return read_json(file)


def _check_disk(needed: DataEstimate, folder: Path) -> None:
    if needed.disk_gb * _MOST_COMPRESSION > needed.disk_free_gb:
        what = (
            f"{needed.cases} cases take up to {needed.disk_gb:.3g} GB, {needed.disk_free_gb:.3g} GB are free: "
            "that is not enough however well they compress"
        )
        how = ["free some space", "nnUNet_preprocessed or --workspace names another disk"]
        raise ResourceError(what, where=str(folder), how=how, code="disk-full")


def _made_otherwise(folder: Path, against: Sequence[str]) -> UmambaError:
    how = ["--overwrite makes all of it anew; plans that use the same folder must agree with that"]
    return UsageError("; ".join(against), where=str(folder), how=how, code="preprocessed-differs")


def _faulty(folder: Path, faults: Mapping[str, BaseException]) -> UmambaError:
    cases = sorted(faults)
    told = "; ".join(
        f"{case}: {str(faults[case]).splitlines()[0] if str(faults[case]) else type(faults[case]).__name__}"
        for case in cases[:_MOST_FAULTS_TOLD]
    )
    what = f"{named(cases)} cannot be preprocessed, all others are done: {told}"
    return DataError(what, where=str(folder), how=["mend or remove them, then run the same command"], code="bad-cases")

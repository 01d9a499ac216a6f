"""`umamba predict`: label maps for many images. A case fails alone; what is done is proven and not made again."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from umamba_seg.errors import BackendUnavailableError, DataError, Interrupted, PartlyDoneError, UsageError
from umamba_seg.files import told_when_full, write_text
from umamba_seg.inference.cases import Case, all_cases, part_of
from umamba_seg.inference.ledger import Entry, Ledger
from umamba_seg.inference.model_folder import ModelFolder
from umamba_seg.inference.models.find import find_model
from umamba_seg.inference.storage import GB
from umamba_seg.progress import OnProgress, ignore
from umamba_seg.run_record import RunRecord, sha256

if TYPE_CHECKING:
    from umamba_seg.inference.case_run import CaseRun
    from umamba_seg.inference.estimate import Estimate
    from umamba_seg.inference.model import Model

FAST = {"mirror": False, "step": 0.75}  # and one fold, and OpenVINO where it is installed
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What was predicted, or with `is_dry_run` would be.

    Args:
        files: The label maps that are there now, in the order of the cases.
        reused: How many of them an earlier run of the same call had made.
        failed: Why a case was not segmented, by its name.
        remarks: What is unusual about a case, by its name.
        changed: Options that are not nnU-Net's, by name.
        estimate: What the work was thought to take; None where nothing was left to do.
    """

    model: Path
    folds: tuple[int | str, ...]
    device: str
    files: tuple[Path, ...]
    seconds: float = 0.0
    is_dry_run: bool = False
    reused: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changed: Mapping[str, object] = field(default_factory=dict)
    estimate: "Estimate | None" = None


def predict(
    model: Path | str,
    inputs: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    folds: Sequence[int | str] = (),
    mirror: bool = True,
    step: float = 0.5,
    accumulate: Literal["nnunet", "fp32"] = "nnunet",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    backend: Literal["torch", "openvino"] = "torch",
    fast: bool = False,
    device: str | None = None,
    memory_gb: float | None = None,
    batch: int | None = None,
    previous_stage: Path | str | None = None,
    save_probabilities: bool = False,
    statistics: bool = False,
    preview: bool = False,
    check: bool = True,
    series: Sequence[str] = (),
    resample_tilt: bool = False,
    part: str | None = None,
    trust: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    report: OnProgress = ignore,
    tell: Tell = lambda sentence: None,
) -> PredictResult:
    """Segment images. A case that fails is told and does not stop the others.

    What an earlier run of the same call has made is not made again: `predictions.csv` beside the label maps proves it.

    Args:
        model: Results folder of one network, `…/nnUNetTrainer__umambaBot8GPlans__3d_fullres`, an nnU-Net zip, or a name
            in the model store.
        inputs: Images, folders of images named as nnU-Net wants them (`CASE_0000.nii.gz`, one file per channel; for
            models of one channel the `_0000` may be missing), a JSON file of cases with the files of each, or a folder
            with a DICOM series.
        output: Folder for the label maps; for a single image also the name of the file to write.
        folds: Which folds to average; empty means all that are trained.
        mirror: Average over mirrored images (test-time augmentation).
        step: Distance of the tiles in parts of a patch.
        accumulate: `nnunet` sums tiles as nnU-Net does, `fp32` more exactly and not the same.
        precision: `bf16` is faster on some processors, and not the same.
        backend: `openvino` runs on CPUs and is nearly the same.
        fast: No mirroring, tiles three quarters apart, one fold, OpenVINO where it is installed.
        device: `cpu`, `cuda`, `mps`; by default the best there is.
        memory_gb: What may be used beside the network's own; by default half of what is free, at most 4.
        batch: Tiles per call of the network.
        previous_stage: For the second stage of a cascade the first stage's label maps or model.
        save_probabilities: Also write the class probabilities as `.npz`.
        statistics: Also write volumes and more to `statistics.csv`.
        preview: Also write a picture of each case.
        check: Say where a case is unlike the training data.
        series: UID of the DICOM series to take, one for each channel.
        resample_tilt: Resample a tilted DICOM series onto a straight grid.
        part: `2/5` takes every fifth case from the second, so that several machines share the work.
        trust: Whether code in the checkpoint may run, as unpickling does.
        overwrite: Replace label maps that are there.
        dry_run: Only say what would be done.
        report: Told how far it is.
        tell: Told in a sentence what is noteworthy.

    Raises:
        DataError: No case could be segmented.
        Interrupted: It was asked to stop; the same call goes on.
    """
    from umamba_seg.device import choose_device, set_import_time_variables

    began = time.monotonic()
    set_import_time_variables()  # before anything imports torch: on a busy machine threads that spin double the cost
    from umamba_seg.inference.engine import Options

    memory = None if memory_gb is None else int(memory_gb * GB)
    options = Options(mirror, step, accumulate, precision, backend, batch, memory)
    with ExitStack() as stack:
        folder = ModelFolder.open(stack.enter_context(find_model(model)), folds)
        if fast:
            options, folder = _fast(options, folder, folds)
        found = stack.enter_context(_cases(inputs, Path(output), folder, series, resample_tilt=resample_tilt))
        cases, chosen = part_of(found, part), choose_device(device)
        changed = options.changed() | _left_out(folder)
        result = PredictResult(Path(model), folder.folds, chosen, (), is_dry_run=dry_run, changed=changed)
        if not cases:
            return result
        settings = json.dumps([folder.folds, options.changed(), save_probabilities, str(previous_stage or "")])
        job = _Job.of(cases, Ledger(cases[0].target.parent, part), _method(folder, settings), overwrite=overwrite)
        result = replace(result, files=tuple(case.target for case in cases), reused=len(cases) - len(job.wanted))
        if not job.wanted:
            return replace(result, seconds=time.monotonic() - began)
        scratch = stack.enter_context(_scratch(None if dry_run else job.folder))
        loaded = _load(folder, chosen, options, previous_stage, trust, scratch, tell, fast=fast)
        stack.callback(loaded.close)
        changed = loaded.engine.options.changed() | _left_out(folder)
        result = replace(result, changed=changed, estimate=_estimate(loaded, job.wanted, tell))
        if not dry_run:
            from umamba_seg.inference.case_run import CaseRun, Extras

            extras = Extras(save_probabilities, preview)
            run = CaseRun(loaded, extras, scratch, check=check, report=report, tell=tell)
            if cases[0].target != Path(output):  # beside a file of the user's choice nothing of ours is wanted
                _write_nnunet_files(loaded, job.folder)
            files = job.do(run, with_statistics=statistics)
            result = replace(result, files=files, failed=run.failed, remarks=run.remarks)
        return replace(result, seconds=time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Job:
    """What there is to do: which cases, and how it is noted that they are done."""

    cases: list[Case]
    wanted: list[Case]
    images: Mapping[str, str]
    method: str
    ledger: Ledger

    @classmethod
    def of(cls, cases: list[Case], ledger: Ledger, method: str, *, overwrite: bool) -> "_Job":
        images = {case.name: _hash(case.files) for case in cases}
        reused = {c.name for c in cases if ledger.is_done(c.name, c.target, images[c.name], method)}
        wanted = [case for case in cases if overwrite or case.name not in reused]
        _check_targets([case.target for case in wanted], overwrite)
        return cls(cases, wanted, images, method, ledger)

    @property
    def folder(self) -> Path:
        return self.cases[0].target.parent

    def note(self, entry: Entry) -> None:
        """Write down what became of a case, of which images and by which method."""
        self.ledger.note(replace(entry, images=self.images[entry.case], method=self.method))

    def do(self, run: "CaseRun", *, with_statistics: bool) -> tuple[Path, ...]:
        """Segment what is wanted and write the records; the label maps that are there then."""
        model = run.model
        inputs = [file for case in self.cases for file in case.files if file.is_file()]
        record = RunRecord.begin("predict", device=model.engine.device, inputs=inputs)
        with told_when_full(self.folder):
            was_stopped = run.all(self.wanted, self.note)
            undone = {case.name for case in self.wanted} - set(run.done)
            files = tuple(case.target for case in self.cases if case.name not in undone)
            if with_statistics and not was_stopped:
                run.write_statistics([case for case in self.cases if case.name not in undone])
            code = Interrupted.exit_code if was_stopped else PartlyDoneError.exit_code if run.failed else 0
            record.content["options"] = {"folds": list(model.folder.folds), **asdict(model.engine.options)}
            record.finish(self.folder, outputs=files, exit_code=code)
        if was_stopped:
            what = f"stopped; {len(files)} of {len(self.cases)} label maps are in {self.folder}"
            raise Interrupted(what, how=["run the same command to go on"], code="interrupted")
        if not files:
            name, reason = next(iter(run.failed.items()))
            what, where = f"no case could be segmented; {name}: {reason}", str(self.cases[0].files[0].parent)
            how = ["umamba check finds faults of data sets"]
            raise DataError(what, where=where, how=how, code="unreadable-image")
        return files


def _fast(options: Any, folder: ModelFolder, folds: Sequence[int | str]) -> tuple[Any, ModelFolder]:
    """The options of `--fast`, each named in the result's `changed`."""
    backend = "openvino" if find_spec("openvino") else options.backend
    return replace(options, **FAST, backend=backend), replace(folder, folds=folder.folds if folds else folder.folds[:1])


def _left_out(folder: ModelFolder) -> dict[str, object]:
    """The folds that exist and are not used."""
    everything = ModelFolder.open(folder.folder).folds
    return {"folds": list(folder.folds)} if len(everything) > len(folder.folds) else {}


@contextmanager
def _cases(
    inputs: Path | str | Sequence[Path | str],
    output: Path,
    folder: ModelFolder,
    series: Sequence[str],
    *,
    resample_tilt: bool,
) -> Iterator[list[Case]]:
    """The cases of files and folders; a DICOM series is converted for as long as the block lasts."""
    sources = [Path(inputs)] if isinstance(inputs, Path | str) else [Path(source) for source in inputs]
    if len(sources) == 1 and sources[0].is_dir() and (series or not _has_images(sources[0], folder)):
        from umamba_seg.inference.dicom.case import converted

        with converted(sources[0], output, folder.ending, folder.channels, series, resample_tilt) as case:
            if case is not None:
                yield [case]
                return
    if series:
        what = f"--series chooses among DICOM files, and {sources[0]} has none"
        raise UsageError(what, where="--series", how=["leave it out, or give the DICOM folder"], code="no-dicom")
    yield all_cases(sources, output, folder.endings, folder.channels)


def _has_images(path: Path, folder: ModelFolder) -> bool:
    return any(file.name.endswith(tuple(folder.endings)) for file in path.iterdir())


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """For what lies on disk for a while: beside the label maps, or anywhere where there will be none."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with told_when_full(folder or Path()), TemporaryDirectory(dir=folder, prefix=".umamba-") as spare:
        yield Path(spare)


def _load(
    folder: ModelFolder,
    device: str,
    options: Any,
    previous: Path | str | None,
    trust: bool,
    scratch: Path,
    tell: Tell,
    *,
    fast: bool,
) -> "Model":
    from umamba_seg.inference.model import load_model

    settings: dict[str, Any] = {"folds": folder.folds, "device": device, "previous": previous, "trust": trust}
    settings |= {"scratch": scratch, "tell": tell}
    try:
        return load_model(folder.folder, options=options, **settings)
    except BackendUnavailableError as fault:
        if not fast:
            raise
        tell(f"{fault.what}; torch is used")
        return load_model(folder.folder, options=replace(options, backend="torch"), **settings)


def _estimate(model: "Model", cases: Sequence[Case], tell: Tell) -> "Estimate":
    from umamba_seg.inference.estimate import estimate

    options, found = model.engine.options, estimate(model, cases)
    tell(found.sentence())
    flips = len(model.engine.backend.flips)
    if options.mirror and flips:
        tell(f"mirroring makes the network run {flips + 1} times; --no-tta leaves it out, --fast more than that")
    if changed := options.changed():
        tell("not as nnU-Net does it: " + ", ".join(f"{name} {value}" for name, value in changed.items()))
    return found


def _method(folder: ModelFolder, settings: str) -> str:
    return _hash([folder.folder / "plans.json", *folder.checkpoints], settings)


def _hash(files: Sequence[Path], more: str = "") -> str:
    """Of the contents of files, and a word."""
    total = hashlib.sha256(more.encode())
    for file in files:
        total.update(sha256(file).encode() if file.is_file() else b"missing")
    return total.hexdigest()[:32]


def _check_targets(targets: Sequence[Path], overwrite: bool) -> None:
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        what = f"{len(there)} of {len(targets)} label maps are there already, the first is {there[0].name}"
        how = ["choose another output folder, or --overwrite"]
        raise UsageError(what, where=str(there[0].parent), how=how, code="output-exists")


def _write_nnunet_files(model: "Model", targets: Path) -> None:
    """What nnU-Net's own post-processing and ensembling look for beside label maps; what is there stays."""
    options = model.engine.options
    arguments = {"tile_step_size": options.step, "use_mirroring": options.mirror, "folds": list(model.folder.folds)}
    contents = {
        "dataset.json": model.folder.dataset_json,
        "plans.json": model.folder.plans.plans,
        "predict_from_raw_data_args.json": arguments,
    }
    for name, content in contents.items():
        if not (targets / name).exists():
            write_text(targets / name, json.dumps(content, indent=4))

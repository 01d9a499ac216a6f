"""`umamba postprocess`: does to label maps what `umamba select` or nnU-Net found to help, by nnU-Net's function."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from umamba_seg.device import cores, set_import_time_variables
from umamba_seg.errors import DataError, ModelError, UsageError
from umamba_seg.files import told_when_full
from umamba_seg.nnunet.ensemble import Description, check_targets
from umamba_seg.run_record import RunRecord
from umamba_seg.workspace import read_json

FILE = "postprocessing.json"
KNOWN = "remove_all_but_largest_component_from_segmentation"  # nnU-Net has no other


def postprocess(
    predictions: Path, output: Path, *, source: Path, processes: int | None = None, overwrite: bool = False
) -> list[Path]:
    """Postprocess the label maps of a folder.

    nnU-Net's `postprocessing.pkl` would run the code in it when it is read; `postprocessing.json` beside it says the
    same.

    Args:
        predictions: Folder of label maps.
        output: Folder for the new ones.
        source: Folder that has `postprocessing.json`, `plans.json` and `dataset.json`, or one of its files.
        processes: How many cases to work on at once.
        overwrite: Replace label maps that are there.

    Returns:
        The new label maps.

    Raises:
        ModelError: The folder does not say what to do.
        DataError: There is no label map, or one cannot be read.
    """
    set_import_time_variables()
    folder = source if source.is_dir() else source.parent
    options = _options(folder)
    description = Description.of(folder, option="--from")
    files = sorted(predictions.glob(f"*{description.ending}"))
    if not files:
        raise DataError(f"no {description.ending} label maps are here", where=str(predictions), code="no-label-maps")
    if output.resolve() == predictions.resolve():
        raise UsageError("the output must be another folder", where="-o", how=["name a new one"], code="same-folder")
    targets = [output / file.name for file in files]
    check_targets(targets, overwrite=overwrite)
    record = RunRecord.begin("postprocess", device="cpu", inputs=files)
    output.mkdir(parents=True, exist_ok=True)
    with told_when_full(output), TemporaryDirectory(dir=output, prefix=".umamba-") as spare:
        _apply(predictions, Path(spare), options, description, processes or min(8, cores()))
        for target in targets:
            (Path(spare) / target.name).replace(target)
        record.finish(output, outputs=targets)
    return targets


def _options(folder: Path) -> list[dict[str, Any]]:
    """Of each call of the one function."""
    if not (folder / FILE).is_file():
        how = ["umamba select finds out what helps, and prints the line", "stock nnU-Net writes it beside the .pkl"]
        raise ModelError(f"there is no {FILE}", where=str(folder), how=how, code="no-postprocessing")
    told = read_json(folder / FILE)
    names, options = told.get("postprocessing_fns"), told.get("postprocessing_kwargs")
    if not isinstance(names, list) or not isinstance(options, list) or len(names) != len(options):
        raise ModelError("this is not nnU-Net's account of postprocessing", where=str(folder / FILE), code="bad-file")
    if others := sorted({str(name) for name in names} - {KNOWN}):
        how = ["nnUNetv2_apply_postprocessing  takes the .pkl, and runs the code in it"]
        what = f"nnU-Net has no postprocessing {others[0]!r}"
        raise ModelError(what, where=str(folder / FILE), how=how, code="unknown-postprocessing")
    return options


def _apply(
    predictions: Path, output: Path, options: list[dict[str, Any]], description: Description, processes: int
) -> None:
    from nnunetv2.postprocessing import remove_connected_components as host

    function = getattr(host, KNOWN)
    try:
        host.apply_postprocessing_to_folder(
            str(predictions),
            str(output),
            [function] * len(options),
            options,
            description.plans,
            description.dataset,
            processes,
        )
    except RuntimeError as fault:  # SimpleITK's, out of a worker
        reason = str(fault).strip().splitlines()[-1]
        what = f"a label map cannot be read: {reason}"
        raise DataError(what, where=str(predictions), how=["predict it again"], code="unreadable") from fault

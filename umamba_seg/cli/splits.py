"""`umamba splits`."""

import json
from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import (
    DatasetArgument,
    DryRunOption,
    OverwriteOption,
    WorkspaceOption,
    introduce_workspace,
)
from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, UsageError

FILE = "splits_final.json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("umamba splits 4 --group patients.csv", "umamba splits 12 --group '(patient[0-9]+)_' --folds 3")
    command(app, "splits", examples=examples)(splits)


def splits(
    out: Output,
    dataset: DatasetArgument,
    folds: Annotated[int, typer.Option(help="How many.", min=2)] = 5,
    group: Annotated[
        str | None,
        typer.Option(help="File of case,patient, or an expression whose first group is the patient."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffle; nnU-Net's by default.")] = 12345,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
) -> Payload:
    """Write folds in which no patient is in training and validation. Without patients they are nnU-Net's own."""
    from umamba_seg.datasets.check.layout import look
    from umamba_seg.datasets.splits import make_folds, read_patients
    from umamba_seg.files import write_text
    from umamba_seg.workspace import find_dataset

    place = introduce_workspace(out, workspace)
    found = find_dataset(dataset, place)
    layout = look(found.raw)
    cases = sorted(layout.images)
    if not cases:
        raise DataError("no training case is there", where=str(found.raw), how=["umamba check"], code="no-cases")
    declared = layout.description.get("patients")
    patients = read_patients(group, cases) if group else dict(declared) if isinstance(declared, dict) else None
    made = make_folds(cases, patients=patients, folds=folds, seed=seed)
    file = found.preprocessed / FILE
    text = json.dumps(made, indent=1)
    is_same = file.is_file() and json.loads(file.read_bytes()) == made
    if file.is_file() and not is_same and not overwrite and not dry_run:
        how = ["--overwrite replaces it; models trained on its folds keep their validation results"]
        raise UsageError("there are other folds already", where=str(file), how=how, code="splits-exist")
    if not dry_run and not is_same:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    for number, fold in enumerate(made):
        people = "" if patients is None else f", {len({patients.get(case, case) for case in fold['val']})} patients"
        out.line(f"fold {number}: {len(fold['train'])} train, {len(fold['val'])} validate{people}")
    out.remark("dry run: nothing was written" if dry_run else f"{'unchanged' if is_same else 'written'}: {file}")
    return {"dataset": found.name, "file": str(file), "folds": made, "dry_run": dry_run}

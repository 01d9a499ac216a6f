"""Folds for cross-validation, with no patient in training and validation at once."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umamba_seg.errors import DataError, UsageError

HOST_SEED, HOST_FOLDS = 12345, 5
Fold = dict[str, list[str]]


def make_folds(
    cases: Sequence[str], *, patients: Mapping[str, str] | None = None, folds: int = HOST_FOLDS, seed: int = HOST_SEED
) -> list[Fold]:
    """Folds in nnU-Net's form; without patients, and with its number and seed, they are nnU-Net's own.

    Args:
        cases: All training cases.
        patients: Whose each case is; a case that is not named is a patient of its own.
        folds: How many.
        seed: Of the shuffle.
    """
    from sklearn.model_selection import KFold

    of = {case: (patients or {}).get(case, case) for case in cases}
    people = sorted(set(of.values()))
    if not 2 <= folds <= len(people):
        what = f"{len(people)} patients" if patients else f"{len(people)} cases"
        raise UsageError(
            f"{what} can be split into 2 to {len(people)} folds, not {folds}",
            where="--folds",
            how=["train on  all  needs no folds"] if len(people) < 2 else [f"--folds {min(len(people), HOST_FOLDS)}"],
            code="bad-folds",
        )
    made = []
    for _, chosen in KFold(n_splits=folds, shuffle=True, random_state=seed).split(people):
        validated = {people[i] for i in chosen}
        made.append(
            {
                "train": sorted(case for case in cases if of[case] not in validated),
                "val": sorted(case for case in cases if of[case] in validated),
            }
        )
    return made


def read_patients(source: str, cases: Sequence[str]) -> dict[str, str]:
    """Whose each case is, from a JSON or CSV file of case and patient, or by a regular expression on the case's name.

    The expression's first group, or all it matches, is the patient.
    """
    path = Path(source)
    if path.is_file():
        found = _from_json(path) if path.suffix == ".json" else _from_csv(path)
        if strange := sorted(set(found) - set(cases)):
            raise DataError(
                f"it names cases that are not there: {', '.join(strange[:3])}", where=source, code="unknown-cases"
            )
        missing = sorted(set(cases) - set(found))
    else:
        found, missing = _by_expression(source, cases)
    if missing:
        how = ["name a patient for every case"]
        raise DataError(f"no patient for {', '.join(missing[:3])}", where=source, how=how, code="no-patient")
    return found


def _from_json(path: Path) -> dict[str, str]:
    content: Any = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise DataError('it must be {"case": "patient", …}', where=str(path), code="bad-patients")
    return {str(case): str(patient) for case, patient in content.items()}


def _from_csv(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark at the beginning
        rows = [row for row in csv.reader(file) if row]
    if any(len(row) < 2 for row in rows):
        raise DataError("each line must be case,patient", where=str(path), code="bad-patients")
    return {row[0].strip(): row[1].strip() for row in rows if row[0].strip().lower() != "case"}


def _by_expression(expression: str, cases: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    try:
        pattern = re.compile(expression)
    except re.error as fault:
        how = ["give a file of case,patient, or an expression such as '(patient[0-9]+)_'"]
        raise UsageError(
            f"neither a file nor an expression: {fault}", where=f"--group {expression}", how=how, code="bad-group"
        ) from None
    found, missing = {}, []
    for case in cases:
        match = pattern.search(case)
        if match is None:
            missing.append(case)
        else:
            found[case] = match[1] if pattern.groups else match[0]
    return found, missing

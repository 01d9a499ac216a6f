"""Folds keep patients together, and are nnU-Net's own where nobody says who is who."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umamba_seg.datasets.splits import make_folds, read_patients
from umamba_seg.errors import DataError, UsageError

CASES = [f"case_{i:03d}" for i in range(1, 24)]


def test_without_patients_they_are_nnunets_own():
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    expected = generate_crossval_split(CASES, seed=12345, n_splits=5)

    assert make_folds(CASES) == [{part: list(map(str, fold[part])) for part in ("train", "val")} for fold in expected]


@given(st.lists(st.integers(0, 8), min_size=6, max_size=30), st.integers(0, 5))
def test_every_case_is_validated_once_and_no_patient_is_on_both_sides(people, seed):
    cases = [f"c{i}" for i in range(len(people))]
    patients = {case: str(person) for case, person in zip(cases, people, strict=True)}
    count = len(set(people))
    if count < 2:
        return

    folds = make_folds(cases, patients=patients, folds=min(3, count), seed=seed)

    assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(cases)
        assert not {patients[c] for c in fold["train"]} & {patients[c] for c in fold["val"]}


@pytest.mark.parametrize("folds", [1, 24])
def test_more_folds_than_patients_are_refused(folds):
    with pytest.raises(UsageError, match="2 to 23 folds"):
        make_folds(CASES, folds=folds)


def test_patients_come_from_an_expression_or_from_files(tmp_path):
    cases = ["anna_1", "anna_2", "ben_1"]
    expected = {"anna_1": "anna", "anna_2": "anna", "ben_1": "ben"}
    lines = "".join(f"{c},{p}\n" for c, p in expected.items())
    (tmp_path / "p.csv").write_text(f"case,patient\n{lines}", encoding="utf-8-sig")  # as spreadsheets write it
    (tmp_path / "p.json").write_text(json.dumps(expected))

    assert read_patients("([a-z]+)_", cases) == expected
    assert read_patients(str(tmp_path / "p.csv"), cases) == expected
    assert read_patients(str(tmp_path / "p.json"), cases) == expected


@pytest.mark.parametrize(("source", "message"), [("(x", "neither a file"), ("(an+)a", "no patient for ben_1")])
def test_what_names_no_patient_is_told(source, message):
    with pytest.raises((UsageError, DataError), match=message):
        read_patients(source, ["anna_1", "ben_1"])


def test_a_file_that_names_strange_cases_is_told(tmp_path):
    (tmp_path / "p.csv").write_text("anna_1,a\nghost,b\n")

    with pytest.raises(DataError, match="ghost"):
        read_patients(str(tmp_path / "p.csv"), ["anna_1"])

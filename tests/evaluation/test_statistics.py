"""Intervals and tests: against scipy's own words, and by what they must do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from umamba_seg.evaluation.statistics import compare, holm, mean_with_interval, verdict


def scores(count: int = 30, mean: float = 0.8, seed: int = 0) -> dict[str, float]:
    values = np.random.default_rng(seed).normal(mean, 0.05, count)
    return {f"c{i}": float(value) for i, value in enumerate(values)}


def test_the_interval_is_scipys_bootstrap_of_the_mean():
    values = scores()

    found = mean_with_interval(values)

    expected = stats.bootstrap(
        (list(values.values()),), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(list(values.values())))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert found.count == 30


def test_scans_of_one_patient_count_as_one_observation():
    values = scores(10)
    doubled = values | {f"{case}b": value for case, value in values.items()}
    patients = {case: case.removesuffix("b") for case in doubled}

    alone, together = mean_with_interval(values), mean_with_interval(doubled, patients)

    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    assert mean_with_interval(doubled).high - mean_with_interval(doubled).low < 0.9 * (together.high - together.low)


def test_what_is_not_defined_is_left_out_and_not_counted():
    found = mean_with_interval({"a": 1.0, "b": math.nan, "c": 0.0})

    assert (found.mean, found.count) == (0.5, 2)
    assert math.isnan(mean_with_interval({"a": math.nan}).mean)


def test_a_constant_shift_is_found_with_its_direction():
    first = scores()
    second = {case: value + 0.02 + 0.001 * i % 0.003 for i, (case, value) in enumerate(first.items())}

    better, worse = compare(first, second), compare(second, first)

    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.wins == worse.losses == 30
    assert better.p < 0.001
    assert compare(first, second, higher_is_better=False).verdict == "worse"
    assert compare(first, second, test="wilcoxon").p == pytest.approx(
        stats.wilcoxon([second[c] - first[c] for c in first]).pvalue
    )


def test_only_shared_cases_are_compared():
    found = compare({"a": 0.5, "b": 0.6, "x": 0.1}, {"a": 0.5, "b": 0.7, "y": 0.9})

    assert (found.wins, found.ties, found.losses, found.interval.count) == (1, 1, 0, 2)
    assert found.verdict == "too few cases to say"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "better"),
        (0.001, 0.003, "better, by less than 0.5 points"),
        (-0.03, -0.01, "worse"),
        (-0.002, 0.002, "equal within 0.5 points"),
        (-0.01, 0.02, "no difference shown"),
        (math.nan, math.nan, "too few cases to say"),
    ],
)
def test_the_verdict_is_what_the_interval_says(low, high, words):
    assert verdict(low, high) == words


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)

    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert max(p_values) <= max(adjusted)


def test_holm_by_hand():
    assert holm([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])

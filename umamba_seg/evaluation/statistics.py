"""Means with intervals, and differences of paired cases. What is resampled are patients, not scans of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES, SEED, CONFIDENCE = 9999, 12345, 0.95
SMALL = 0.005  # half a Dice point
Test = Literal["permutation", "wilcoxon"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies with 95 % confidence; NaN where there are too few patients.

    Args:
        count: How many cases it is of.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What a second method has more than a first on the same cases.

    Args:
        p: Of the paired test, two-sided; NaN where all differences are 0.
        wins: Cases in which the second is better. So are `ties` and `losses`.
        verdict: In words.
    """

    interval: Interval
    p: float
    wins: int
    ties: int
    losses: int
    verdict: str


def mean_with_interval(values: Mapping[str, float], patients: Mapping[str, str] | None = None) -> Interval:
    """The mean over cases, and a BCa bootstrap over patients; cases that are NaN are left out and not counted."""
    known = {case: value for case, value in values.items() if np.isfinite(value)}
    if not known:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(np.mean(list(known.values())))
    low, high = _bootstrap(_by_patient(known, patients))
    return Interval(mean, low, high, len(known))


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    patients: Mapping[str, str] | None = None,
    test: Test = "permutation",
    higher_is_better: bool = True,
    margin: float = SMALL,
) -> Difference:
    """Judge a second method by a first, over the cases that both have."""
    shared = [case for case in first if case in second and np.isfinite(first[case]) and np.isfinite(second[case])]
    differences = {case: second[case] - first[case] for case in shared}
    interval = mean_with_interval(differences, patients)
    sign = 1 if higher_is_better else -1
    gains = sign * np.array(list(differences.values()))
    return Difference(
        interval,
        _p_value(np.array([part.mean() for part in _by_patient(differences, patients)]), test),
        int((gains > 0).sum()),
        int((gains == 0).sum()),
        int((gains < 0).sum()),
        verdict(sign * interval.low, sign * interval.high, margin),
    )


def verdict(low: float, high: float, margin: float = SMALL) -> str:
    """What an interval of a gain says, in words; never "significant" alone."""
    low, high = min(low, high), max(low, high)
    if not (np.isfinite(low) and np.isfinite(high)):
        return "too few cases to say"
    if low > 0 or high < 0:
        word = "better" if low > 0 else "worse"
        return f"{word}, by less than {100 * margin:g} points" if max(abs(low), abs(high)) < margin else word
    if -margin < low and high < margin:
        return f"equal within {100 * margin:g} points"
    return "no difference shown"


def holm(p_values: Sequence[float]) -> list[float]:
    """p values for several questions asked at once, after Holm; NaN stays."""
    order = sorted((i for i, p in enumerate(p_values) if np.isfinite(p)), key=lambda i: p_values[i])
    adjusted, largest = list(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _by_patient(values: Mapping[str, float], patients: Mapping[str, str] | None) -> list[np.ndarray]:
    groups: dict[str, list[float]] = {}
    for case, value in values.items():
        groups.setdefault((patients or {}).get(case, case), []).append(value)
    return [np.array(group) for group in groups.values()]


def _bootstrap(groups: list[np.ndarray]) -> tuple[float, float]:
    from scipy.stats import bootstrap

    sums, counts = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
    if len(groups) < 3:
        return np.nan, np.nan
    if np.ptp(sums / counts) == 0:
        return float(sums[0] / counts[0]), float(sums[0] / counts[0])

    def mean(total: np.ndarray, count: np.ndarray, axis: int) -> np.ndarray:
        return total.sum(axis) / count.sum(axis)

    found = bootstrap(
        (sums, counts), mean, paired=True, vectorized=True, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="BCa", rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _p_value(differences: np.ndarray, test: Test) -> float:
    from scipy.stats import permutation_test, wilcoxon

    if len(differences) < 2 or not differences.any():
        return np.nan
    if test == "wilcoxon":
        return float(wilcoxon(differences).pvalue)
    found = permutation_test(
        (differences, np.zeros_like(differences)), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples",
        vectorized=True, n_resamples=RESAMPLES, rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(found.pvalue)

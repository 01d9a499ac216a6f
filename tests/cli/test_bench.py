"""`umamba bench kernels`, with sizes that take no time."""

import json

import pytest

from umamba_seg.bench import kernels
from umamba_seg.errors import ModelError


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {
        "LONG": (1, 16, 256, 4),
        "WIDE": (1, 32, 64, 4),
        "VOLUME": (1, 4, 4, 4, 16),
        "LENGTHS": (64, 128),
    }.items():
        monkeypatch.setattr(kernels, name, small)


@pytest.mark.usefixtures("tiny")
def test_every_part_gives_rows_with_a_ratio():
    parts = (kernels._against_a_loop, kernels._along_axes, kernels._by_length, kernels._convolution)
    rows = [row for part in parts for row in part("torch", 1)]

    assert {"plain loop / ours", "ours / exponentials", "bdl / bld", "six / one", "torch's conv1d / ours"} <= {
        row.against for row in rows
    }
    assert all(row.ratio > 0 for row in rows)
    json.dumps(kernels.as_dicts(rows))


def test_no_time_is_told_of_a_wrong_scan(monkeypatch: pytest.MonkeyPatch):
    right = kernels._ours
    monkeypatch.setattr(kernels, "_ours", lambda backend: lambda **given: 1.01 * right(backend)(**given))

    with pytest.raises(ModelError, match="off the float64 loop"):
        next(kernels.measure("torch"))


def test_a_device_that_is_not_there_is_told(umamba):
    assert umamba("bench", "kernels", "--device", "tpu").code == 2

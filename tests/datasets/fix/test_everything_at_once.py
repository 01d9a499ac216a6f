"""Whatever is broken and whatever is asked for: an answer, and a source as it was."""

import struct

import pytest

from tests.datasets.check.test_faults import FAULTS
from tests.datasets.fix.test_run import NAME, state
from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.fix.remedies import REMEDIES
from umamba_seg.datasets.fix.run import fix

VALUES = {
    "X,Y,Z": "1,1.5,2", "Z,Y,X": "2,1,1", "NUMBER": "1", "VALUE": "0", "LOW,HIGH": "-1000,1000", "OLD=NEW": "255=1",
}  # fmt: skip
ALL = [f"{remedy.code}:{VALUES.get(remedy.action, remedy.action)}" for remedy in REMEDIES]
PAIRS = list(zip(FAULTS, [*list(FAULTS)[7:], *list(FAULTS)[:7]], strict=True))  # each with another of another kind


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{one} + {other}" for one, other in PAIRS])
def test_all_remedies_together_end_with_a_report_and_an_untouched_source(raw, one, other):
    try:
        for fault in (one, other):
            FAULTS[fault][0](raw)
    except (OSError, struct.error):
        pytest.skip("the second fault needs what the first has taken")
    before, told = state(raw), check(raw)

    done = fix(raw, raw.with_name(NAME), check, apply=ALL)

    assert state(raw) == before
    assert sum(x.severity == "error" for x in done.report.findings) <= len(told.findings)
    if done.is_made:
        assert check(raw.with_name(NAME)).findings == done.report.findings
    again = fix(raw.with_name(NAME), raw.with_name("Dataset113_X"), check, apply=ALL) if done.is_made else done
    assert not again.is_made, again.changes

"""What `--apply` takes is what the documentation says."""

import re

import pytest

from tests.helpers import ROOT
from umamba_seg.datasets.fix.remedies import REMEDIES, choose

PAGE = (ROOT / "docs/how-to/check-data.md").read_text().split("## Mend a copy")[1].split("## Folds")[0]
SAFE, CHOICES = PAGE.split("| a choice |")
VALUES = {"X,Y,Z": "1,1,2", "Z,Y,X": "2,1,1", "NUMBER": "1", "VALUE": "-1024", "LOW,HIGH": "-5,5", "OLD=NEW": "4=3"}


def test_every_remedy_is_in_the_documentation_as_what_it_is():
    for remedy in REMEDIES:
        assert f"`{remedy.code}" in (SAFE if remedy.is_safe else CHOICES), remedy


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`([a-z]+-[a-z-]+(?::[^`]+)?)`", CHOICES))))
def test_every_choice_in_the_documentation_is_one(word):
    code, colon, action = word.partition(":")

    (choice,) = choose([f"{code}{colon}{VALUES.get(action, action)}"])

    assert choice.remedy.code == code
    assert not choice.remedy.is_safe
    assert (choice.value is None) == (action not in VALUES)


def test_actions_of_a_fault_have_names_of_their_own():
    assert len({(remedy.code, remedy.action) for remedy in REMEDIES}) == len(REMEDIES)

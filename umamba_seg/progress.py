"""How long-running functions tell how far they are, without knowing who listens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a step that takes time.

    Args:
        step: What is being done: `plan`, `train umambaBot8GPlans`.
        done: Units finished.
        total: Units in all; 0 when nobody knows.
        unit: What is counted.
        facts: What else there is to tell, in the order to show it: `{"loss": "-0.81", "Dice liver": ".96"}`.
    """

    step: str
    done: int
    total: int
    unit: str = "steps"
    facts: Mapping[str, str] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Listen to nothing."""

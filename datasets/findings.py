"""What is wrong with a data set: one finding for each fault and cause."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Args:
        code: Short name of the kind of fault.
        severity: Whether nnU-Net may not be trained on it, or the user should know.
        message: What is wrong, with the values.
        cases: All cases at fault and only those; empty for the set as a whole.
        files: Relative to the data set's folder.
        expected: What should be there.
        found: What is.
        nnunet: What nnU-Net does with it.
        mend: What to do.
    """

    code: str
    severity: Severity
    message: str
    cases: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    expected: Any = None
    found: Any = None
    nnunet: str = ""
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of a data set.

    Args:
        dataset: Its name.
        cases: How many training cases there are.
        channels: Their names.
        labels: As dataset.json has them.
        findings: Errors first.
        accepted: Findings that the user has accepted before.
        seconds: How long it took.
    """

    dataset: str
    cases: int
    channels: tuple[str, ...]
    labels: Mapping[str, Any]
    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...] = ()
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """How many findings there are of one kind."""
        return sum(finding.severity == severity for finding in self.findings)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by kind and case."""
    return tuple(sorted(findings, key=lambda found: (found.severity, found.code, found.cases, found.files)))

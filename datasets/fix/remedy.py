"""What a remedy is: a way to mend one kind of fault, and whether it needs the user's word."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umamba_seg.datasets.findings import Finding
from umamba_seg.datasets.fix.draft import Draft


@dataclass(frozen=True, slots=True)
class Step:
    """One change.

    Args:
        what: In words, with the values.
        files: What becomes another, relative to the data set's folder.
        act: Makes it.
    """

    what: str
    files: tuple[str, ...]
    act: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Remedy:
    """A way to mend one kind of fault.

    Args:
        code: Of the fault.
        action: Its name, or the form of the value that it needs, such as OLD=NEW.
        find: The step that mends a finding; None where this remedy does not fit.
        is_safe: Whether nothing can be lost by it, so that it is done unasked.
        parse: Reads the value, None where the text is none; without it the remedy needs none.
    """

    code: str
    action: str
    find: Callable[[Draft, Finding, Any], Step | None]
    is_safe: bool = False
    parse: Callable[[str], Any] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A remedy that is to be used, with its value."""

    remedy: Remedy
    value: Any = None

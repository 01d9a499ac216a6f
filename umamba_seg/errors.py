"""Errors a user can mend: where, what, how. Each class stands for one exit code of the command line.

Everything else that is raised is a fault of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence


class UmambaError(Exception):
    """A fault with a place, a reason and a way out.

    Args:
        what: One sentence with the values in it.
        where: File, option or step at fault; empty when `what` names it.
        how: Ways to mend it, most likely first.
        code: Short name for programs, such as `unknown-dataset`.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", how: Sequence[str] = (), code: str = "error") -> None:
        super().__init__(what)
        self.what, self.where, self.how, self.code = what, where, tuple(how), code

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return "\n".join([place + self.what, *(f"mend: {way}" for way in self.how)])

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.what, self.where, self.how, self.code)


def _restore(kind: type[UmambaError], what: str, where: str, how: Sequence[str], code: str) -> UmambaError:
    return kind(what, where=where, how=how, code=code)  # keyword arguments do not survive pickling by themselves


class UsageError(UmambaError, ValueError):
    """A name, option or value that does not exist or does not fit."""

    exit_code = 2


def unknown(kind: str, name: str, known: Iterable[str], *, where: str = "", how: Sequence[str] = ()) -> UsageError:
    """The error for a name that does not exist: it lists the three that are most like it, and further ways out."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    ways = [f"did you mean {', '.join(near)}?"] if near else []
    code = f"unknown-{kind.replace(' ', '-')}"
    return UsageError(f"there is no {kind} {name!r}", where=where, how=[*ways, *how], code=code)


class DataError(UmambaError, ValueError):
    """Images, labels or a data set that cannot be used as they are."""

    exit_code = 3


class Interrupted(UmambaError):  # noqa: N818  (no error: the state is saved and the same command continues)
    """Stopped on request with everything saved."""

    exit_code = 4


class MachineError(UmambaError, RuntimeError):
    """An installation or a machine that cannot do what was asked."""

    exit_code = 5


class BackendUnavailableError(MachineError):
    """A kernel backend asked for by name that cannot run here."""


class ResourceError(UmambaError, RuntimeError):
    """Not enough memory, GPU memory, disk or shared memory."""

    exit_code = 6


class ModelError(UmambaError, RuntimeError):
    """A trained model that is incomplete, damaged or does not fit the data."""

    exit_code = 7


class PartlyDoneError(UmambaError, RuntimeError):
    """Some cases failed, the others are written."""

    exit_code = 8

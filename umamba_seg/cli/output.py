"""What a command says and where: data on stdout, everything else on stderr, and nnU-Net's own chatter in a log file."""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from umamba_seg import __version__
from umamba_seg.errors import UmambaError
from umamba_seg.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars

ProgressStyle = Literal["auto", "json", "none"]
SCHEMA = 1
MOST_SECONDS_BETWEEN_LINES = 60.0
WIDTH_OF_FILES = 200  # nobody's window is the limit there


class Output:
    """Everything one run of one command prints.

    Args:
        command: Its name, for JSON.
        as_json: One JSON document on stdout and nothing else there.
        quiet: No progress and no remarks; results and errors stay.
        verbosity: 1 shows nnU-Net's chatter, 2 adds debug logs.
        style: How progress is told.
        has_colour: False switches colours off; None lets the terminal and `NO_COLOR` decide.
    """

    def __init__(
        self,
        command: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbosity: int = 0,
        style: ProgressStyle = "auto",
        has_colour: bool | None = None,
    ) -> None:
        from rich.console import Console

        self.command, self.as_json, self.quiet, self.verbosity, self.style = command, as_json, quiet, verbosity, style
        self.began = time.monotonic()
        no_color = True if has_colour is False else None  # None: as the terminal and NO_COLOR say
        data = _copy(1, sys.stdout)
        width = None if data.isatty() or "COLUMNS" in os.environ else WIDTH_OF_FILES
        # copies of the descriptors, so that both keep speaking to the user while 1 and 2 are turned to a log
        self._data = Console(file=data, width=width, highlight=False, no_color=no_color)
        self._remarks = Console(file=_copy(2, sys.stderr), highlight=False, no_color=no_color)
        self._told: dict[str, tuple[int, float]] = {}
        self._bars: Bars | None = None
        self._bar_ids: dict[str, Any] = {}
        self._log: Path | None = None
        if verbosity > 1:
            logging.basicConfig(level=logging.DEBUG)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *fault: object) -> None:
        for console, own in ((self._data, sys.stdout), (self._remarks, sys.stderr)):
            console.file.flush()
            if console.file is not own:
                console.file.close()

    def show(self, content: "RenderableType") -> None:
        """A result for the reader; in JSON mode the payload says it instead."""
        if not self.as_json:
            self._data.print(content)

    def line(self, text: str) -> None:
        """A result that programs may read line by line: neither wrapped nor coloured."""
        if not self.as_json:
            self._data.print(text, soft_wrap=True, markup=False)

    def remark(self, text: str) -> None:
        """A word on what is going on; not a result."""
        if not self.quiet:
            self._remarks.print(text, soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """Something the reader should know although the command goes on."""
        from rich.text import Text

        self._remarks.print(Text.assemble(("warning  ", "yellow"), text), soft_wrap=True)

    def finish(self, payload: Mapping[str, object], *, exit_code: int = 0) -> None:
        """The JSON document of a command that did what it was asked."""
        if self.as_json:
            self._print_json({"status": "ok" if exit_code == 0 else "error", "exit_code": exit_code, **payload})

    def fail(self, error: UmambaError) -> None:
        """Where, what and how to mend."""
        if self.as_json:
            told = {"code": error.code, "where": error.where, "what": error.what, "how": list(error.how)}
            self._print_json({"status": "error", "exit_code": error.exit_code, "error": told})
            return
        from rich.text import Text

        word = ("stopped", "yellow") if error.exit_code == 4 else ("error", "bold red")
        self._remarks.print(
            Text.assemble(word, "  ", error.where or self.command, "   ", (error.code, "dim")), soft_wrap=True
        )
        self._remarks.print(f"  {error.what}", markup=False, soft_wrap=True)
        for way in error.how:
            self._remarks.print(f"  {'next' if error.exit_code == 4 else 'mend'}: {way}", markup=False, soft_wrap=True)

    def _print_json(self, document: Mapping[str, object]) -> None:
        seconds = round(time.monotonic() - self.began, 1)
        head = {"umamba": __version__, "schema": SCHEMA, "command": self.command, "seconds": seconds}
        self._data.file.write(json.dumps({**head, **document}, default=str) + "\n")
        self._data.file.flush()

    @property
    def log(self) -> Path:
        """The file that takes what only a maintainer wants to read."""
        if self._log is None:
            import platformdirs

            self._log = (
                _writable_folder(platformdirs.user_log_path("umamba"))
                / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
            )
        return self._log

    @contextmanager
    def chatter(self) -> Iterator[None]:
        """Keep what nnU-Net and its workers print away from stdout: in the log, or on stderr with `-v`."""
        kept = os.dup(1), os.dup(2)
        target = os.dup(2) if self.verbosity else os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _flush()
            os.dup2(target, 1)
            if not self.verbosity:
                os.dup2(target, 2)
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                yield
        finally:
            _flush()
            self._stop_bars()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
            for descriptor in (*kept, target):
                os.close(descriptor)

    def progress(self, report: Progress) -> None:
        """Tell how far a step is, in the way that suits who listens."""
        if self.style == "json":
            self._tell_json(report)
        elif self.quiet or self.style == "none":
            return
        elif self._remarks.is_terminal and not self._remarks.is_dumb_terminal:
            self._tell_bar(report)
        else:
            self._tell_line(report)

    def _tell_json(self, report: Progress) -> None:
        event = {"event": "progress", "step": report.step, "done": report.done, "total": report.total, **report.facts}
        self._remarks.file.write(json.dumps(event) + "\n")
        self._remarks.file.flush()

    def _tell_bar(self, report: Progress) -> None:
        from rich import progress

        if self._bars is None:
            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=24),
                progress.TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[facts]}"),
            )
            self._bars = progress.Progress(*columns, console=self._remarks)
            self._bars.start()
        if report.step not in self._bar_ids:
            self._bar_ids[report.step] = self._bars.add_task(
                report.step, total=report.total, unit=report.unit, facts=""
            )
        facts = "  ".join(f"{name} {value}" for name, value in report.facts.items())
        self._bars.update(self._bar_ids[report.step], completed=report.done, total=report.total, facts=facts)
        if report.total and report.done >= report.total:
            self._bars.stop_task(self._bar_ids[report.step])

    def _tell_line(self, report: Progress) -> None:
        tenth = 10 * report.done // report.total if report.total else report.done
        last_tenth, last_time = self._told.get(report.step, (-1, 0.0))
        if tenth == last_tenth and time.monotonic() - last_time < MOST_SECONDS_BETWEEN_LINES:
            return
        self._told[report.step] = tenth, time.monotonic()
        share = f"{100 * report.done // report.total:3d} %" if report.total else ""
        facts = "".join(f"  {name} {value}" for name, value in report.facts.items())
        self.remark(f"{report.step}  {share}  {report.done}/{report.total} {report.unit}{facts}")

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._bar_ids = None, {}


def _copy(descriptor: int, stream: TextIO) -> TextIO:
    try:
        return os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="replace", buffering=1)
    except (OSError, ValueError, AttributeError):  # an embedded Python may have no such descriptor
        return stream


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _writable_folder(preferred: Path) -> Path:
    import tempfile

    try:
        preferred.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=preferred):
            return preferred
    except OSError:
        return Path(tempfile.gettempdir())

"""What all commands share: common options, one way to end, exit codes.

A command is a function whose first parameter is the `Output` to speak through. It returns the payload of its JSON
document.
"""

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from umamba_seg.cli.output import Output, ProgressStyle
from umamba_seg.errors import UmambaError

Payload = Mapping[str, object]
OUR_FAULT = 1
INTERRUPTED_WITH_NOTHING_TO_RESUME = 130

_COMMON = "Common"
_COMMON_OPTIONS = {
    "as_json": (
        bool,
        False,
        typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=_COMMON),
    ),
    "quiet": (bool, False, typer.Option("--quiet", "-q", help="Results and errors only.", rich_help_panel=_COMMON)),
    "verbosity": (
        int,
        0,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help="Show what nnU-Net prints; -vv adds debug logs.",
            rich_help_panel=_COMMON,
        ),
    ),
    "debug": (bool, False, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_COMMON)),
    "no_color": (
        bool,
        False,
        typer.Option("--no-color", help="No colours; NO_COLOR does the same.", rich_help_panel=_COMMON),
    ),
    "style": (
        ProgressStyle,
        "auto",
        typer.Option("--progress", help="How progress is told on stderr.", rich_help_panel=_COMMON),
    ),
}


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...]
) -> Callable[[Callable[..., Payload]], Callable[..., Payload]]:
    """Register a function as `umamba NAME` with the common options, and pass the function on unchanged."""

    def register(function: Callable[..., Payload]) -> Callable[..., Payload]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
            for key, (kind, default, option) in _COMMON_OPTIONS.items()
        ]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            shared = {key: values.pop(key) for key in _COMMON_OPTIONS}
            raise typer.Exit(_run(name, function, values, **shared))

        run.__signature__ = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + common)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own + common}
        text = inspect.cleandoc(function.__doc__ or "") + "\n\n" + "\n\n".join(f"    {example}" for example in examples)
        app.command(name, help=text)(run)
        return function

    return register


def _run(
    name: str,
    function: Callable[..., Payload],
    values: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    verbosity: int,
    debug: bool,
    no_color: bool,
    style: ProgressStyle,
) -> int:
    has_colour = False if no_color else None
    with Output(name, as_json=as_json, quiet=quiet, verbosity=verbosity, style=style, has_colour=has_colour) as out:
        try:
            payload = dict(function(out, **values))
            exit_code = payload.pop("exit_code", 0)
            assert isinstance(exit_code, int)
            out.finish(payload, exit_code=exit_code)
            return exit_code
        except UmambaError as error:
            if debug:
                traceback.print_exc()
            out.fail(error)
            return error.exit_code
        except KeyboardInterrupt:
            out.fail(_StoppedError())
            return INTERRUPTED_WITH_NOTHING_TO_RESUME
        except Exception as fault:
            _keep_traceback(out, show=debug)
            out.fail(_InternalError(fault, out))
            return OUR_FAULT


class _StoppedError(UmambaError):
    exit_code = INTERRUPTED_WITH_NOTHING_TO_RESUME

    def __init__(self) -> None:
        super().__init__(
            "interrupted; nothing was left to go on with", how=["run the same command again"], code="interrupted"
        )


class _InternalError(UmambaError):
    exit_code = OUR_FAULT

    def __init__(self, fault: Exception, out: Output) -> None:
        what = f"{type(fault).__name__}: {fault}".splitlines()[0]
        super().__init__(
            what, how=[f"this is a fault of ours: please report it with the log {out.log}"], code="internal"
        )


def _keep_traceback(out: Output, *, show: bool) -> None:
    with out.log.open("a", encoding="utf-8") as log:
        traceback.print_exc(file=log)
    if show:
        traceback.print_exc()

"""The `umamba` program. Importing it must stay light: torch and nnU-Net are imported by the commands that need them."""

import sys
from typing import Annotated

import typer

from umamba_seg.cli import (
    bench,
    check,
    config,
    demo,
    doctor,
    ensemble,
    evaluate,
    fix,
    import_data,
    import_weights,
    init,
    models,
    networks,
    nnunet,
    plan,
    predict,
    preprocess,
    preview,
    select,
    splits,
    statistics,
    status,
    stop,
    train,
)
from umamba_seg.cli.output import Output
from umamba_seg.errors import UsageError
from umamba_seg.process import collecting_rarely

app = typer.Typer(
    name="umamba",
    help="Mamba U-Nets for medical image segmentation, inside an unforked nnU-Net.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from umamba_seg.doctor import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _umamba(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Read the options that stand before the command."""


for module in (
    doctor,
    init,
    demo,
    check,
    fix,
    splits,
    plan,
    preprocess,
    train,
    status,
    stop,
    select,
    predict,
    ensemble,
    statistics,
    preview,
    evaluate,
    networks,
    import_weights,
    config,
):
    module.register(app)
app.add_typer(import_data.app, name="import")
app.add_typer(models.app, name="models")
app.add_typer(nnunet.app, name="nnunet")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the program on the arguments it was started with."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a label name may hold what an old terminal cannot show
    with collecting_rarely():
        if "--json" in sys.argv[1:]:
            sys.exit(_run_for_programs())
        app()


def _run_for_programs() -> int:
    """As `app()`, but an option that does not exist is told as JSON too."""
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as fault:
        if not hasattr(fault, "format_message"):
            raise
        error = UsageError(fault.format_message(), how=["--help lists what there is"], code="usage")
        with Output("umamba", as_json=True) as out:
            out.fail(error)
        return error.exit_code


if __name__ == "__main__":
    main()

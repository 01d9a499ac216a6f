"""`umamba nnunet path` and `umamba nnunet env`."""

from typing import Annotated

import typer

from umamba_seg.cli.command import Payload, command
from umamba_seg.cli.options import WorkspaceOption
from umamba_seg.cli.output import Output

app = typer.Typer(help="What stock nnU-Net commands need to know.", no_args_is_help=True)


def path(out: Output) -> Payload:
    """Print the folder in which nnU-Net finds our trainers."""
    from umamba_seg.nnunet import PLUGIN_FOLDER

    out.line(str(PLUGIN_FOLDER))
    return {"path": str(PLUGIN_FOLDER)}


def env(
    out: Output,
    workspace: WorkspaceOption = None,
    shell: Annotated[str | None, typer.Option(help="bash, zsh, fish, ps1 or conda.", rich_help_panel="Output")] = None,
) -> Payload:
    """Print lines that make stock nnU-Net commands use the same three folders."""
    from umamba_seg.workspace import current_shell, export_lines, locate

    lines = export_lines(locate(workspace), shell or current_shell())
    for line in lines:
        out.line(line)
    return {"lines": lines}


command(app, "path", examples=('export nnUNet_extTrainer="$(umamba nnunet path)"',))(path)
command(app, "env", examples=('eval "$(umamba nnunet env)"', "umamba nnunet env --shell fish | source"))(env)

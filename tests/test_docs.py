"""What the documentation tells users to type exists."""

import re
import shlex

import pytest
import typer.main

from tests.helpers import ROOT
from umamba_seg.cli.main import app

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TOP = typer.main.get_command(app)
FRAGMENTS = {
    page: [*re.findall(r"`([^`\n]+)`", page.read_text()), *re.findall(r"^ {4,}(\S.*)$", page.read_text(), re.M)]
    for page in PAGES
}
COMMANDS = sorted(
    {(page.name, text) for page, texts in FRAGMENTS.items() for text in texts if re.match(r"umamba [a-z]", text)}
)


def command_and_words(line: str) -> tuple[object, list[str]]:
    words = shlex.split(line.split("$(")[0], comments=True)[1:]
    command = TOP
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_in_the_documentation_exists_with_its_options(page, line):
    command, words = command_and_words(line)
    assert command is not TOP, f"{page}: {line}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word in options | {"--help", "-h"}, f"{page}: {line}"


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "docs/reference/python.md").read_text(), re.S)
)
def test_python_in_the_reference_runs(block):
    if "from umamba_seg import plan" in block:
        pytest.skip("needs a data set; tests/test_end_to_end.py makes the same calls")
    exec(compile(block, "python.md", "exec"), {})

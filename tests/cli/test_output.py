import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from umamba_seg.cli.output import Output
from umamba_seg.errors import DataError, Interrupted
from umamba_seg.progress import Progress


@pytest.fixture
def make_output(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Output]]:
    """Outputs that speak into `capfd` and are closed when the test ends."""
    monkeypatch.setenv("COLUMNS", "200")
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Output("test", **options))


def test_data_go_to_stdout_and_remarks_to_stderr(make_output, capfd):
    out = make_output()
    out.line("result")
    out.remark("remark")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("result\n", "remark\n")


def test_json_is_one_document_and_nothing_else(make_output, capfd):
    out = make_output(as_json=True)
    out.line("result")
    out.finish({"value": 1})
    document = json.loads(capfd.readouterr().out)
    assert document["value"] == 1
    assert {"umamba", "schema", "command", "status", "exit_code", "seconds"} <= document.keys()


def test_an_error_says_where_what_and_how(make_output, capfd):
    make_output().fail(DataError("is broken", where="a.nii.gz", how=["mend it"], code="broken"))
    lines = capfd.readouterr().err.splitlines()
    assert [line.split() for line in lines] == [
        ["error", "a.nii.gz", "broken"],
        ["is", "broken"],
        ["mend:", "mend", "it"],
    ]


def test_a_stop_is_not_called_an_error(make_output, capfd):
    make_output().fail(Interrupted("saved", how=["go on"]))
    assert "error  " not in capfd.readouterr().err


def test_an_error_in_json_has_the_same_parts(make_output, capfd):
    make_output(as_json=True).fail(DataError("is broken", where="a.nii.gz", how=["mend it"], code="broken"))
    document = json.loads(capfd.readouterr().out)
    assert (document["status"], document["exit_code"]) == ("error", 3)
    assert document["error"] == {"code": "broken", "where": "a.nii.gz", "what": "is broken", "how": ["mend it"]}


def test_progress_outside_a_terminal_is_a_line_for_each_tenth(make_output, capfd):
    out = make_output()
    for done in range(101):
        out.progress(Progress("work", done, 100))
    assert len(capfd.readouterr().err.splitlines()) == 11


def test_progress_can_be_json_lines(make_output, capfd):
    make_output(style="json").progress(Progress("work", 1, 2, facts={"loss": "0.1"}))
    assert json.loads(capfd.readouterr().err) == {
        "event": "progress",
        "step": "work",
        "done": 1,
        "total": 2,
        "loss": "0.1",
    }


@pytest.mark.parametrize("options", [{"quiet": True}, {"style": "none"}])
def test_progress_can_be_silent(make_output, capfd, options):
    make_output(**options).progress(Progress("work", 1, 2))
    assert capfd.readouterr().err == ""


CHATTER = """
import os
from umamba_seg.cli.output import Output
with Output("test", verbosity={verbosity}) as out:
    with out.chatter():
        print("from python")
        os.system("echo from a child")
        out.line("result")
    out.line(str(out.log))
"""


def test_chatter_of_python_and_of_children_goes_to_the_log(umamba):
    answer = umamba.run(sys.executable, "-c", CHATTER.format(verbosity=0))
    result, log = answer.out.splitlines()
    assert (result, answer.err) == ("result", "")
    assert sorted(Path(log).read_text().splitlines()) == ["from a child", "from python"]


def test_chatter_goes_to_stderr_when_asked_for(umamba):
    answer = umamba.run(sys.executable, "-c", CHATTER.format(verbosity=1))
    assert answer.out.splitlines()[0] == "result"
    assert sorted(answer.err.splitlines()) == ["from a child", "from python"]


def test_no_colour_codes_outside_a_terminal(make_output, capfd):
    out = make_output()
    out.warn("careful")
    out.fail(DataError("is broken"))
    assert "\x1b" not in capfd.readouterr().err

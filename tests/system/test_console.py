"""How much is said, where, and in which colours."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers import Project
from terminal import shown_at

from qlutattn_patch.commands import main
from qlutattn_patch.system import console
from qlutattn_patch.workspace import Workspace


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def _as_at_the_start():
    yield
    console.configure()


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that the commands find, and nothing in the environment about colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    return project


@pytest.mark.parametrize(
    ("environment", "piped", "terminal"),
    [
        ({}, False, True),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, True),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, False, True),
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR": "0", "CLICOLOR_FORCE": "1"}, True, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_the_environment_and_the_terminal_decide(environment: dict[str, str], piped: bool, terminal: bool) -> None:
    assert console.wants_color(Stream(False), environment) is piped
    assert console.wants_color(Stream(True), environment) is terminal
    for when, wanted in (("always", True), ("never", False)):
        console.set_color(when)
        assert {console.wants_color(Stream(is_terminal), environment) for is_terminal in (True, False)} == {wanted}


def test_colours_where_they_are_asked_for(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, colours in (
        (["types"], False),
        (["types", "--color", "always"], True),
        (["--color", "always", "types"], True),
        (["--color", "always", "types", "--color=never"], False),
        (["types"], False),  # what was asked of one run is not kept for the next
    ):
        assert main.run(argv) == 0
        assert ("\x1b[" in capsys.readouterr().out) is colours, argv


def test_json_is_never_coloured(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--color", "always", "types", "--json"]) == 0
    assert "\x1b[" not in capsys.readouterr().out


def test_quiet_says_errors_alone(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["generate"]) == 0
    assert capsys.readouterr().err != ""
    for argv in (["-q", "generate"], ["generate", "--quiet"], ["-v", "apply", "-q"]):
        assert main.run(argv) == 0
        assert capsys.readouterr().err == "", argv
    (here.tree / "LICENSE").write_text("mine\n")
    assert main.run(["revert", "--quiet"]) == 3
    assert capsys.readouterr().err.startswith("error: ")


def test_verbose_shows_the_programs(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["generate", "--verbose"]) == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("$ ")]
    assert any(" git " in line and "format-patch" in line for line in shown)
    assert main.run(["generate", "--check"]) == 0
    assert "$ " not in capsys.readouterr().err


@pytest.mark.parametrize(("variable", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_at_a_terminal(variable: dict[str, str], colours: bool) -> None:
    said, status = shown_at(120, "types", **variable)
    assert status == 0
    assert "qlutattn_k4_128x128" in said
    assert ("\x1b[1m" in said) is colours


def test_cells_and_messages_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    console.out_table(["a [bold]b[/bold]"], [["[red]x[/red]"], [f"{tmp_path}[/]"]])
    console.error("no [bold] here", "[x]")
    said = capsys.readouterr()
    assert "[red]x[/red]" in said.out
    assert f"{tmp_path}[/]" in said.out
    assert said.err == "error: no [bold] here\n  next: [x]\n"


@pytest.mark.parametrize(
    ("passed", "done", "total", "said"),
    [(1, 1, 2, ""), (10, 0, 5, ""), (10, 1, 5, "40 s left"), (60, 1, 11, "10 min left"), (60, 5, 5, "")],
)
def test_time_left(passed: float, done: int, total: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.time, "monotonic", lambda: 100 + passed)
    assert console.time_left(done, total, 100) == said


def test_a_long_task_shows_what_it_does_and_how_long_it_will_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("building llama (native)") as moved:
        now = 5.0
        moved(1, 8, "src/llama.cpp")  # too soon after the last line
        now = 20.0
        moved(2, 8, "ggml/src/ggml.c")
    first, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("· building llama (native)", f"{first} 2/8 · 60 s left · ggml/src/ggml.c")


def test_verdicts_and_states_are_coloured() -> None:
    console.set_color("always")
    assert console.state("PASS") == "\x1b[32mPASS\x1b[0m"
    assert console.state("FAIL") == "\x1b[31mFAIL\x1b[0m"
    assert console.state("stale") == "\x1b[33mstale\x1b[0m"
    assert console.state("other") == "other"
    console.set_color("never")
    assert console.state("PASS") == "PASS"

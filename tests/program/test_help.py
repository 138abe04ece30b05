"""Help with examples that work, groups, the version, and that none of it loads what only work needs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from helpers import ROOT, Project, edit, parsed

from qlutattn_patch import __version__
from qlutattn_patch.commands import main
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.upstream.pin import load_pin
from qlutattn_patch.workspace import Workspace

HEAVY = {"git", "jinja2", "numpy", "gguf", "matplotlib", "rich", "platformdirs", "filelock", "subprocess", "asyncio"}
if sys.version_info < (3, 11):
    HEAVY -= {"subprocess"}  # which click itself loads there, by way of uuid and platform


def commands() -> dict[str, click.Command]:
    context = click.Context(main.group)
    return {name: command for name in main.COMMANDS if (command := main.group.get_command(context, name))}


EXAMPLES = [line for command in commands().values() for line, _ in getattr(command, "examples", ())]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_ends_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = commands()[name]
    assert getattr(command, "examples", ()), f"{name}: give its command `cls=Command` and `examples`"
    assert main.run([name, "--help"]) == 0
    out = capsys.readouterr().out
    told = out.partition("\nExamples:\n")[2]
    for line, what in command.examples:
        assert line.startswith(f"qlutattn {name}")
        assert f"\n    {line}\n" in f"\n{told}"
        assert what.endswith(":")
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_are_understood(line: str) -> None:
    parsed(shlex.split(line)[1:])


def test_what_is_wrong_in_an_example_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parsed(["build", "--presets", "native"])


@pytest.mark.parametrize("line", [line for line in EXAMPLES if line.split()[1] in ("types", "doctor")])
def test_cheap_examples_work(line: str) -> None:
    argv = [sys.executable, "-m", "qlutattn_patch", *shlex.split(line)[1:]]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_main_job_work_on_a_small_project(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Workspace.find.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: find(cls, tree, project.root)))
    shutil.copytree(project.upstream, project.root / "llama.cpp")
    monkeypatch.chdir(project.tree)
    shutil.copytree(project.upstream, project.tree.parent / "up")
    for name in ("vendor", "generate", "apply", "status", "revert"):
        for line, _ in commands()[name].examples:  # type: ignore[attr-defined]
            argv = [word.replace("../llama.cpp", "../up") for word in shlex.split(line)[1:]]
            if "--from" not in argv:
                assert main.run(argv) == 0, line


def test_commands_are_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["--help"])
    out = capsys.readouterr().out
    at = [out.index(f"\n{title}:\n") for title in (*main.GROUPS, "Examples")]
    assert at == sorted(at)


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([name, "--help"] for name in main.COMMANDS)], ids=lambda argv: argv[0]
)
def test_help_loads_no_library(argv: list[str]) -> None:
    """Not timed, which would fail on a busy machine: what is not loaded takes no time."""
    code = (
        f"import sys; from qlutattn_patch.commands import main; main.run({argv}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("argv", "heavy"),
    [
        (["types", "--json"], HEAVY),
        (["types"], HEAVY - {"rich"}),
        (["status", "--json"], {"numpy", "gguf", "matplotlib", "rich"}),
    ],
    ids=("types --json", "types", "status --json"),
)
def test_what_does_no_work_loads_little(argv: list[str], heavy: set[str], project: Project) -> None:
    code = f"""
import sys
from pathlib import Path
from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace
find = Workspace.find.__func__
Workspace.find = classmethod(lambda cls, tree=None: find(cls, tree, Path({str(project.root)!r})))
assert main.run({argv}) == 0
print(*sys.modules, file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stderr.split())


# --- the version


def test_the_version_names_pin_and_series(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    version, pin, series = capsys.readouterr().out.splitlines()
    workspace = Workspace.find()
    assert version == f"qlutattn {__version__}"
    assert load_pin(workspace.pin_file).commit in pin
    assert load_series(workspace.patches).digest in series


def test_the_version_outside_of_a_checkout(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "qlutattn_patch", tmp_path / "lib" / "qlutattn_patch")
    done = subprocess.run(
        [sys.executable, "-m", "qlutattn_patch", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == f"qlutattn {__version__}"
    assert "none here (it is in a clone and in the wheel)" in done.stdout


def test_the_version_says_what_is_wrong_with_the_rest(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: project.workspace))
    edit(project.workspace.pin_file, "schema = 1", "schema = 7")
    assert main.run(["--version"]) == 0
    out = capsys.readouterr().out
    assert "'schema' must be 1, not 7" in out
    with pytest.raises(ExpectedError) as failure:
        load_series(project.workspace.patches)
    assert failure.value.cause in out

"""The error boundary, the exit codes, what is imported when, and that JSON is nothing but JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers import ROOT

from qlutattn_patch.building import doctor
from qlutattn_patch.commands import main
from qlutattn_patch.system.errors import CheckFailed, ExpectedError


def raising(failure: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise failure

    return fail


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (ExpectedError("The disk is full.", "rm it"), 3, "error: The disk is full.\n  next: rm it\n"),
        (ExpectedError("A [bracket] in it."), 3, "error: A [bracket] in it.\n"),
        (CheckFailed("Two of them differ."), 1, "error: Two of them differ.\n"),
        (CheckFailed(), 1, ""),
        (KeyboardInterrupt(), 130, "error: Interrupted.\n"),
        (click.Abort(), 130, "error: Interrupted.\n"),
        (click.UsageError("No such thing"), 2, "error: No such thing.\n  next: qlutattn doctor --help\n"),
    ],
)
def test_failures_have_their_exit_code_and_sentence(
    failure: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "examine", raising(failure))
    assert main.run(["doctor"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_bug_leaves_a_log_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("QLUTATTN_CACHE", str(tmp_path / "ein Cache"))
    monkeypatch.setattr(doctor, "examine", raising(ZeroDivisionError("one\ntwo")))
    assert main.run(["doctor"]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "ZeroDivisionError: one" in err
    assert "Traceback" not in err
    (log,) = (tmp_path / "ein Cache" / "log").iterdir()
    assert str(log) in err
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert "'doctor'" in log.read_text(encoding="utf-8")


def test_a_bug_is_told_where_no_cache_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QLUTATTN_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(doctor, "examine", raising(ZeroDivisionError()))
    assert main.run(["doctor"]) == 70
    assert re.search(rf"The log is {tmp_path}/\S+\.log\.", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["-V"], 0),
        (["help"], 0),
        (["help", "build"], 0),
        (["help", "no-such-command"], 2),
        (["build", "--help"], 0),
        (["no-such-command"], 2),
        (["build", "--no-such-option"], 2),
        (["build", "--preset", "none"], 2),
        (["build", "--jobs", "0"], 2),
        (["build", "-D", "GGML_CUDA"], 2),
    ],
)
def test_exit_codes_of_the_command_line(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(argv) == code
    out, err = capsys.readouterr()
    assert (out == "") == (code != 0)
    assert (err == "") == (code == 0)


def test_help_names_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["--help"])
    out = capsys.readouterr().out
    for name in main.COMMANDS:
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE), name


def test_help_of_a_command_is_what_its_option_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("build", "cache"):
        assert main.run(["help", name]) == main.run([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_a_command_imports_no_other_ones_libraries() -> None:
    code = "import sys; from qlutattn_patch.commands import main; main.run(['doctor', '-h'])"
    code += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "qlutattn_patch.commands.doctor" in loaded
    assert not loaded & {"git", "jinja2", "numpy", "gguf", "qlutattn_patch.commands.vendor"}


@pytest.mark.parametrize("argv", [["types", "--json"], ["doctor", "--json"], ["status", "--json"]])
def test_json_is_one_document_and_nothing_else(argv: list[str]) -> None:
    argv = [sys.executable, "-m", "qlutattn_patch", *argv]
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, "FORCE_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["schema"] == 1

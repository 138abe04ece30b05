"""Programs are run, told where that is asked for, and ended with all that they started."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from qlutattn_patch.system import console, process


@pytest.fixture(autouse=True)
def _as_at_the_start():
    yield
    console.configure()


def test_a_failure_of_ours_ends_the_program() -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    start = time.monotonic()
    with pytest.raises(ValueError, match="a line"):
        process.follow(["sh", "-c", "echo a line; sleep 600"], refuse)
    assert time.monotonic() - start < 300  # and not the 600 s that it sleeps


def test_what_does_not_heed_an_interrupt_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 0.2)

    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="deaf"):
        process.follow(["sh", "-c", "trap '' INT; echo deaf; while :; do sleep 0.1; done"], refuse)


def test_programs_are_shown_as_one_would_type_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    process.capture(["sh", "-c", "exit 0"])
    assert capsys.readouterr().err == ""
    console.be_verbose()
    process.capture(["sh", "-c", "exit 0"], cwd=tmp_path)
    assert capsys.readouterr().err == f"$ cd {tmp_path} && sh -c 'exit 0'\n"


@pytest.mark.parametrize(("status", "quiet", "said"), [(0, False, "x\n"), (0, True, ""), (3, True, "x\n")])
def test_quiet_keeps_what_a_program_says_for_its_failure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int, quiet: bool, said: str
) -> None:
    if quiet:
        console.be_quiet()
    assert process.stream([sys.executable, "-c", f"print('x'); raise SystemExit({status})"]) == status
    assert capfd.readouterr().err == said


def test_input_and_output(tmp_path: Path) -> None:
    result = process.capture(["cat"], input="grün")
    assert (result.status, result.stdout, result.stderr) == (0, "grün", "")

"""One command at a time; a dead one holds nothing."""

from __future__ import annotations

import os
import signal

import pytest
from helpers import together

from qlutattn_patch.errors import ExpectedError
from qlutattn_patch.lock import locked


def test_the_second_waits_for_the_first(tmp_path):
    def work():
        with locked(tmp_path / "lock", "the tree"):
            assert not (tmp_path / "inside").exists()
            (tmp_path / "inside").touch()
            (tmp_path / "inside").unlink()

    assert together(*[work] * 5) == [0] * 5


def test_the_second_refuses_in_words_in_the_end(tmp_path, capsys):
    def second():
        with pytest.raises(ExpectedError, match="Another qlutattn command still works on the tree") as told:  # noqa: SIM117
            with locked(tmp_path / "lock", "the tree", patience=0.1):
                pass
        assert told.value.hint
        assert "waiting up to 0.1 s" in capsys.readouterr().err

    with locked(tmp_path / "lock", "the tree"):
        assert together(second) == [0]


def test_a_killed_command_holds_no_lock(tmp_path):
    child = os.fork()
    if child == 0:
        with locked(tmp_path / "lock", "the tree"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path / "lock", "the tree", patience=0):
        pass

"""Files are written wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import killed_at

from qlutattn_patch.system.files import files_below, write_atomically


def test_writes_and_makes_the_folder(tmp_path):
    write_atomically(tmp_path / "neu er" / "x", b"data")
    assert (tmp_path / "neu er" / "x").read_bytes() == b"data"
    assert [path.name for path in (tmp_path / "neu er").iterdir()] == ["x"]


def test_killed_at_every_step_it_is_old_or_new(tmp_path):
    path = tmp_path / "x"
    seen = set()
    for count in range(1, 100):
        path.write_bytes(b"old")
        if not killed_at(count, tmp_path, lambda: write_atomically(path, b"new")):
            break
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new"}
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


def test_an_error_leaves_the_old_file_alone(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    assert files_below(tmp_path) == [tmp_path / "a" / "b"]
    assert files_below(tmp_path / "none") == []

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "a")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        files_below(tmp_path)

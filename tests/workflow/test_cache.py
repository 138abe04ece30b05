"""The cache directory: its parts, and removing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import write_files

from qlutattn_patch.commands import main
from qlutattn_patch.workflow import cache


@pytest.fixture
def folder() -> Path:
    """A cache with three parts, and something of the user's."""
    folder = Path(os.environ["QLUTATTN_CACHE"])
    files = {"archives/a.tar.gz": "1234", "upstreams/x/y": "12", "log/z": "1", "mine/keep": "1"}
    write_files(folder, files)
    return folder


def test_sizes_are_those_of_the_files(folder: Path) -> None:
    assert {part.name: part.bytes for part in cache.parts()} == {"archives": 4, "upstreams": 2, "log": 1}


def test_named_parts_are_removed(folder: Path) -> None:
    assert [part.name for part in cache.clean(("upstreams", "wheels"))] == ["upstreams"]
    assert sorted(path.name for path in folder.iterdir()) == ["archives", "log", "mine"]


def test_all_parts_are_removed_and_nothing_else(folder: Path) -> None:
    (folder / ".removed-log-1").mkdir()
    cache.clean(())
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert cache.clean(()) == []


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of docs/cli.md, and more."""
    assert main.run(["cache", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert main.run(["cache", "size"]) == 0
    assert "archives" in capsys.readouterr().out
    assert main.run(["cache", "clean", "nothing"]) == 2
    assert main.run(["cache", "size", "archives"]) == 2
    assert main.run(["cache", "clean", "--json"]) == 0
    assert not (folder / "archives").exists()


def test_there_may_be_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLUTATTN_CACHE", str(tmp_path / "none"))
    assert cache.parts() == cache.clean(()) == []

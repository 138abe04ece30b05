"""Digests of files and of whole rooms, which fail on what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlutattn_patch.building import results
from qlutattn_patch.system import digests
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.workflow import matrix


def test_a_name_and_a_byte_both_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert digests.of_files(tmp_path, [tmp_path / "a"]) != digests.of_files(tmp_path, [tmp_path / "b"])
    before = digests.of_files(tmp_path, [tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"2")
    assert digests.of_files(tmp_path, [tmp_path / "a"]) != before


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExpectedError, match="There is no file"):
        digests.of_files(tmp_path, [tmp_path / "gone"])


def test_any_module_of_a_room_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room" / "below").mkdir(parents=True)
    (tmp_path / "room" / "a.py").write_text("1")
    (tmp_path / "room" / "below" / "b.py").write_text("1")
    monkeypatch.setattr(digests, "_PACKAGE", tmp_path)
    before = digests.of_rooms("room")
    (tmp_path / "room" / "below" / "b.py").write_text("2")
    assert digests.of_rooms("room") != before


def test_a_room_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="align_dump"):
        digests.of_rooms("proof", "align_dump")


@pytest.mark.parametrize("packages", [matrix._CHECKER_PACKAGES, results._CHECKER_PACKAGES])
def test_the_packages_of_the_checkers_exist(packages: tuple[str, ...]) -> None:
    assert len(digests.of_rooms(*packages)) == 64

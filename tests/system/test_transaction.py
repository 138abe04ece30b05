"""A change of files happens wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import killed_at, snapshot, write_files

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.transaction import Contents, Transaction

OLD = {"a.txt": "old a\n", "deep/er/b.txt": "old b\n", "deep/gone.txt": "old\n", "gone/too.txt": "old\n", "keep": "k\n"}
CHANGES = {
    "a.txt": Contents(b"new a\n"),
    "deep/er/b.txt": Contents(b"new b\n", executable=True),
    "deep/gone.txt": None,
    "gone/too.txt": None,
    "new/folder/c ü.txt": Contents(b"c\n"),
}


@pytest.fixture
def transaction(tmp_path: Path) -> Transaction:
    return prepared(tmp_path / "1")


def prepared(folder: Path) -> Transaction:
    write_files(folder / "top", OLD)
    write_files(folder / "state", {"note.json": "old note"})
    return Transaction(folder / "top", folder / "state", folder / "state" / "note.json")


def is_new(transaction: Transaction) -> bool:
    wanted = {"a.txt": (b"new a\n", False), "deep/er/b.txt": (b"new b\n", True), "keep": (b"k\n", False)}
    wanted["new/folder/c ü.txt"] = (b"c\n", False)
    return snapshot(transaction.top) == wanted and transaction.note.read_text() == "new note"


def is_old(transaction: Transaction) -> bool:
    old = {name: (text.encode(), False) for name, text in OLD.items()}
    return snapshot(transaction.top) == old and transaction.note.read_text() == "old note"


def state_is_tidy(transaction: Transaction) -> bool:
    return [path.name for path in transaction.state.iterdir()] == ["note.json"]


def test_changes_adds_removes_and_tidies_up(transaction):
    transaction.run(CHANGES, b"new note")
    assert is_new(transaction)
    assert state_is_tidy(transaction)


def test_a_note_can_be_removed(transaction):
    transaction.run({}, None)
    assert not transaction.note.exists()
    assert snapshot(transaction.top) == {name: (text.encode(), False) for name, text in OLD.items()}


def test_an_unchanged_file_keeps_its_time(transaction):
    before = (transaction.top / "keep").stat().st_mtime_ns
    transaction.run(CHANGES, b"new note")
    assert (transaction.top / "keep").stat().st_mtime_ns == before


def test_killed_at_every_step_it_is_finished_or_never_happened(tmp_path):
    seen = set()
    for count in range(1, 500):
        transaction = prepared(tmp_path / str(count))
        if not killed_at(count, tmp_path, lambda it=transaction: it.run(CHANGES, b"new note")):
            break
        certain = transaction.is_unfinished
        done = is_new(transaction)
        transaction.recover()
        assert is_new(transaction) if certain or done else is_old(transaction), f"killed at step {count}"
        assert state_is_tidy(transaction)
        seen.add(certain)
        transaction.run(CHANGES, b"new note")
        assert is_new(transaction), f"killed at step {count}, then run again"
    assert count > 30
    assert seen == {True, False}


def test_recovery_can_be_killed_as_well(tmp_path):
    for first in range(1, 500):
        transaction = prepared(tmp_path / str(first))
        if not killed_at(first, tmp_path, lambda it=transaction: it.run(CHANGES, b"new note")):
            break
        for second in range(1, 6):
            killed_at(second, tmp_path, transaction.recover)
        transaction.recover()
        assert is_new(transaction) or is_old(transaction), f"killed at step {first}"
        assert state_is_tidy(transaction)


@pytest.mark.parametrize("nth", range(1, 5))
def test_an_error_puts_everything_back(transaction, monkeypatch, nth):
    replace, calls = os.replace, []

    def failing(source, target, **more):
        if str(target).startswith(str(transaction.top)):
            calls.append(target)
            if len(calls) == nth:
                raise PermissionError(13, "Permission denied", str(target))
        return replace(source, target, **more)

    monkeypatch.setattr(os, "replace", failing)
    monkeypatch.setattr(Path, "replace", lambda self, target: failing(self, target))
    if nth == 4:  # there are three: the fourth is one of putting back, and never comes
        transaction.run(CHANGES, b"new note")
        return
    with pytest.raises(ExpectedError, match=r"Permission denied.*every file is unchanged"):
        transaction.run(CHANGES, b"new note")
    assert is_old(transaction)
    assert state_is_tidy(transaction)


def test_putting_back_can_be_killed(tmp_path):
    def failing(transaction: Transaction) -> None:
        replace = Path.replace

        def refuse(self: Path, target: Path) -> Path:
            if target == transaction.top / "new/folder/c ü.txt":
                raise PermissionError(13, "Permission denied", str(target))
            return replace(self, target)

        Path.replace = refuse
        with pytest.raises(ExpectedError):
            transaction.run(CHANGES, b"new note")

    for count in range(1, 500):
        transaction = prepared(tmp_path / str(count))
        if not killed_at(count, tmp_path, lambda it=transaction: failing(it)):
            break
        transaction.recover()
        assert is_old(transaction) or is_new(transaction), f"killed at step {count}"
    assert is_old(transaction)


def test_another_disk_is_no_obstacle(transaction, monkeypatch):
    replace = Path.replace

    def crossing(self: Path, target: Path) -> Path:
        if transaction.state in self.parents and transaction.top in Path(target).parents:
            raise OSError(18, "Invalid cross-device link", str(self), None, str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crossing)
    transaction.run(CHANGES, b"new note")
    assert is_new(transaction)


def test_an_edit_made_after_the_interruption_is_not_lost(tmp_path):
    for count in range(1, 500):
        transaction = prepared(tmp_path / str(count))
        assert killed_at(count, tmp_path, lambda it=transaction: it.run(CHANGES, b"new note"))
        if transaction.is_unfinished:
            break
    (transaction.top / "a.txt").write_text("mine\n")
    with pytest.raises(ExpectedError, match=r"a\.txt was edited since"):
        transaction.recover()
    assert (transaction.top / "a.txt").read_text() == "mine\n"
    (transaction.top / "a.txt").rename(tmp_path / "aside")
    transaction.recover()
    assert is_new(transaction)


def test_a_link_out_of_the_tree_is_refused(transaction, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (transaction.top / "new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExpectedError, match="is a link"):
        transaction.run(CHANGES, b"new note")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_in_the_way_is_refused(transaction):
    (transaction.top / "new/folder/c ü.txt").mkdir(parents=True)
    with pytest.raises(ExpectedError, match="in the way"):
        transaction.run(CHANGES, b"new note")
    assert (transaction.top / "a.txt").read_text() == "old a\n"

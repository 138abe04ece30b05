"""A set of file changes to a work tree that is atomic, also across `kill -9`.

Everything is prepared in a state folder before the first file changes:

    txn/new/N         the new contents of step N, synced
    txn/old/N         a copy of what step N replaces
    txn/new/note      the new contents of the note (the caller's file that changes with the rest), and old/note
    txn/journal.json  the steps; renamed into place last, which commits the change

A folder without a journal is discarded. With one, `recover` continues where the change stopped: forward,
or, after an error, back. A file with neither its old nor its new contents was changed by somebody else,
and stops it.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qlutattn_patch.system.errors import ExpectedError, named
from qlutattn_patch.system.files import is_plain_path, sync, sync_folder, write_atomically
from qlutattn_patch.system.git import is_plain_file
from qlutattn_patch.system.records import Record, Versioned, encoded, read

_Direction = Literal["forward", "back"]


@dataclass(frozen=True)
class Contents:
    """The new contents of a file."""

    data: bytes
    executable: bool = False


class _Step(Record, frozen=True):
    """One file: the digests of its old and new contents (None: absent)."""

    path: str
    old: str | None
    new: str | None

    def __post_init__(self) -> None:
        if not is_plain_path(self.path):
            raise ValueError("a path is outside the tree")


class _Journal(Versioned, frozen=True):
    """The direction of a change, and its steps."""

    direction: _Direction
    steps: tuple[_Step, ...]


@dataclass(frozen=True)
class Transaction:
    """Changes to the files below `top`, prepared and journalled in `state`; `note` is a file that changes with them."""

    top: Path
    state: Path
    note: Path

    @property
    def _folder(self) -> Path:
        return self.state / "txn"

    @property
    def _journal(self) -> Path:
        return self._folder / "journal.json"

    @property
    def is_unfinished(self) -> bool:
        """Whether a change was interrupted after its commit."""
        return self._journal.is_file()

    def run(self, changes: Mapping[str, Contents | None], note: bytes | None) -> None:
        """Change files (None: remove) and then the note; an error restores everything."""
        self.recover()
        with _system_errors(self.top):
            steps = self._prepare(changes, note)
            self._write_journal("forward", steps)
        try:
            self._forward(steps)
        except OSError as failure:
            with _system_errors(self.top):
                self._write_journal("back", steps)
                self._back(steps)
                self._finish()
            raise ExpectedError(
                f"{failure.filename2 or failure.filename or self.top} cannot be changed ({failure.strerror}); "
                "every file is unchanged.",
                "fix that, then run the same command again",
            ) from None
        with _system_errors(self.top):
            self._finish()

    def recover(self) -> bool:
        """Finish an interrupted change; returns whether there was one."""
        with _system_errors(self.top):
            if not self._journal.is_file():
                if self._folder.is_dir():
                    shutil.rmtree(self._folder)
                return False
            journal = self._read_journal()
            if journal.direction == "forward":
                self._forward(journal.steps)
            else:
                self._back(journal.steps)
            self._finish()
            return True

    # --- preparing

    def _prepare(self, changes: Mapping[str, Contents | None], note: bytes | None) -> list[_Step]:
        for name in ("new", "old"):
            (self._folder / name).mkdir(parents=True)
        steps = []
        for number, (path, contents) in enumerate(changes.items()):
            self._refuse_detour(path)
            target = self.top / path
            if contents is not None:
                self._stage(number, contents)
            if target.exists():
                shutil.copy2(target, self._folder / "old" / str(number))
            wanted = None if contents is None else hashlib.sha256(contents.data).hexdigest()
            steps.append(_Step(path, _digest(target), wanted))
        if note is not None:
            write_atomically(self._folder / "new" / "note", note)
        if self.note.is_file():
            shutil.copy2(self.note, self._folder / "old" / "note")
        for folder in (self._folder / "new", self._folder / "old", self._folder):
            sync_folder(folder)
        return steps

    def _stage(self, number: int, contents: Contents) -> None:
        staged = self._folder / "new" / str(number)
        with named(staged), staged.open("wb") as file:
            file.write(contents.data)
            file.flush()
            sync(file.fileno())
        if contents.executable:
            mode = staged.stat().st_mode
            staged.chmod(mode | (mode & 0o444) >> 2)

    def _refuse_detour(self, path: str) -> None:
        """Refuse a target that is not a plain file, or that a link leads out of the tree."""
        target = self.top / path
        for folder in target.relative_to(self.top).parents:
            if (self.top / folder).is_symlink() and folder != Path():
                raise ExpectedError(
                    f"{self.top / folder} is a link, so {path} would be written elsewhere.", "move it away"
                )
        if (target.exists() or target.is_symlink()) and not is_plain_file(self.top, path):
            raise ExpectedError(f"{target} is in the way: it is not a plain file.", "move it away")

    def _write_journal(self, direction: _Direction, steps: Sequence[_Step]) -> None:
        write_atomically(self._journal, encoded(_Journal(direction, tuple(steps))))

    def _read_journal(self) -> _Journal:
        try:
            return read(self._journal, _Journal)
        except ValueError:
            raise ExpectedError(
                f"The journal {self._journal} of an interrupted change is damaged.",
                f"check {self.top} with git status, then remove {self._folder}",
            ) from None

    # --- execution; everything below may be interrupted anywhere, and is then run again from its start

    def _forward(self, steps: Sequence[_Step]) -> None:
        for number, step in enumerate(steps):
            self._move(step.path, self._folder / "new" / str(number), found=step.old, wanted=step.new)
        self._flush(steps, self._folder / "new" / "note")

    def _back(self, steps: Sequence[_Step]) -> None:
        for number, step in enumerate(steps):
            self._move(step.path, self._folder / "old" / str(number), found=step.new, wanted=step.old)
        self._flush(steps, self._folder / "old" / "note")

    def _move(self, path: str, source: Path, found: str | None, wanted: str | None) -> None:
        target = self.top / path
        now = _digest(target)
        if now == wanted:
            if wanted is None:
                _remove_empty_folders(target.parent, self.top)
            return
        if now is not None and now != found:
            raise ExpectedError(
                f"An interrupted change of {self.top} cannot be finished: {path} was edited since.",
                f"move {target} aside, then run the same command again",
            )
        if wanted is None:
            target.unlink()
            _remove_empty_folders(target.parent, self.top)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.replace(target)
        except OSError as failure:
            if failure.errno != errno.EXDEV:
                raise
            # the git directory of a linked work tree may be on another disk
            beside = target.with_name(f".{target.name}.qlutattn")
            shutil.copy2(source, beside)
            beside.replace(target)

    def _flush(self, steps: Sequence[_Step], note: Path) -> None:
        """Flush the files to the disk, then change the note."""
        for folder in {(self.top / step.path).parent for step in steps}:
            if folder.is_dir():
                sync_folder(folder)
        if note.is_file():
            write_atomically(self.note, note.read_bytes())
        else:
            self.note.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._journal.unlink()
        shutil.rmtree(self._folder)


@contextmanager
def _system_errors(top: Path) -> Iterator[None]:
    """Turn a system error into an ExpectedError; the next command finishes the change."""
    try:
        yield
    except OSError as failure:
        raise ExpectedError(
            f"{failure.filename2 or failure.filename or top} cannot be changed: {failure.strerror}.",
            "fix that, then run the same command again",
        ) from None


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _remove_empty_folders(folder: Path, top: Path) -> None:
    while folder != top:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as failure:
            if failure.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
        folder = folder.parent

"""Safe reading of source archives: the whole archive is examined before anything is written."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from qlutattn_patch.system.errors import ExpectedError, from_system, named
from qlutattn_patch.system.files import is_plain_path
from qlutattn_patch.system.toml import shown

_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)
_OTHER = "name another with --from"
_MAX_TEXT = 16 << 20
# Far above any llama.cpp, against decompression bombs.
MAX_BYTES = 4 << 30
MAX_MEMBERS = 1 << 20
MAX_HEADER = 1 << 24  # a long name or a comment, which tarfile reads at once

_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,  # type: ignore[dict-item]
    b"\xfd7zXZ": lzma.open,  # type: ignore[dict-item]
}

Progress = Callable[[int, int], None]


def unpack(archive: Path, target: Path, prefix: str | None, landmarks: Iterable[str], progress: Progress) -> None:
    """Write the files of one folder of a tar archive below `target`, which is created.

    The folder is the one called `prefix` below the archive's top folder; without a prefix it is the one that
    holds the landmarks. A `.git` entry in it (a submodule's) is left out. `progress` is called with
    the numbers of written and of all files.
    """
    members = _examined(archive, target)
    files = [member for member in members if member.isfile()]
    top = _folder(archive, [member.name for member in files], prefix, tuple(landmarks))
    inside = [member.name for member in files if _is_wanted(member.name, top)]
    wanted = {name: _below(name, top) for name in inside}
    for name, path in wanted.items():
        if not is_plain_path(path):
            raise _refused(archive, f"its member {shown(name)} has an invalid name")
    _refuse_if_ambiguous(archive, (_below(name, top) for name in inside))
    target.mkdir(parents=True)
    try:
        with _opened(archive) as tar:
            done = 0
            for member in tar:
                if member.name in wanted and member.isfile():
                    _write(tar, member, target.joinpath(*wanted[member.name].split("/")))
                    done += 1
                    progress(done, len(wanted))
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None


class _Bounded:
    """A stream that refuses reads large enough to fill the memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header is too large")
        return self._stream.read(size)

    def seek(self, at: int, whence: int = 0) -> int:
        return self._stream.seek(at, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed or not."""
    with archive.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        unpacked = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        with unpacked(file) if unpacked else file as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:  # type: ignore[call-overload]
            yield tar


def text_of(archive: Path, name: str) -> str | None:
    """A text file in the top folder of an archive, None if there is none."""
    try:
        with _opened(archive) as tar:
            for member in tar:
                if member.isfile() and _clean(member.name).partition("/")[2] == name:
                    source = tar.extractfile(member)
                    assert source is not None
                    return source.read(_MAX_TEXT).decode("utf-8", "replace")
    except FileNotFoundError:
        raise ExpectedError(f"There is no archive {archive}.", _OTHER) from None
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None
    return None


def _examined(archive: Path, target: Path) -> list[tarfile.TarInfo]:
    """The members of an archive, after checking every one."""
    try:
        with _opened(archive) as tar:
            members = list(_harmless(archive, tar, target))
            # tarfile takes a truncated header for the end of the archive; a complete archive ends in zeros
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("unexpected end of data")
    except FileNotFoundError:
        raise ExpectedError(f"There is no archive {archive}.", _OTHER) from None
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None
    return members


def _harmless(archive: Path, tar: tarfile.TarFile, target: Path) -> Iterator[tarfile.TarInfo]:
    """The members one by one, each checked before the next is read."""
    size = 0
    for count, member in enumerate(tar, 1):
        _refuse_if_hostile(archive, member, target)
        size += member.size
        if size > MAX_BYTES:
            raise _refused(archive, f"unpacked it has more than {MAX_BYTES >> 30} GiB")
        if count > MAX_MEMBERS:
            raise _refused(archive, f"it has more than {MAX_MEMBERS} members")
        yield member


def _refuse_if_ambiguous(archive: Path, names: Iterable[str]) -> None:
    """Refuse names that overwrite one another, also on case-insensitive file systems."""
    files: dict[str, str] = {}
    for name in names:
        other = files.setdefault(name.casefold(), name)
        if other is not name:
            raise _refused(archive, f"'{other}' and '{name}' in it are the same file on some systems")
    for name in files.values():
        for folder in PurePosixPath(name.casefold()).parents:
            if str(folder) in files:
                raise _refused(archive, f"'{files[str(folder)]}' in it is a file and the folder of '{name}'")


def _refuse_if_hostile(archive: Path, member: tarfile.TarInfo, target: Path) -> None:
    """Refuse links, special files, and whatever tarfile's data filter refuses."""
    reason = None
    if member.issym() or member.islnk():
        reason = "is a link"
    elif not (member.isfile() or member.isdir()):
        reason = "is a device or another special file"
    elif member.size < 0:
        reason = "has a size below zero"
    if reason:
        raise _refused(archive, f"its member {shown(member.name)} {reason}")
    if hasattr(tarfile, "data_filter"):  # in Python 3.10.12, 3.11.4 and newer
        try:
            tarfile.data_filter(member, str(target))
        except tarfile.FilterError as failure:
            raise _refused(archive, str(failure)) from None


def _folder(archive: Path, names: list[str], prefix: str | None, landmarks: tuple[str, ...]) -> str:
    """The folder of the archive that holds the landmarks ('' is the archive's own top)."""
    there = {_clean(name) for name in names}
    firsts = {_clean(name).partition("/")[0] for name in names}
    candidates = [f"{first}/{prefix}" for first in firsts] + [prefix] if prefix else _parents(there, landmarks[0])
    found = [top for top in candidates if all(_joined(top, landmark) in there for landmark in landmarks)]
    if not found:
        where = f"a folder {prefix} with" if prefix else "a folder with"
        raise ExpectedError(f"The archive {archive} contains no llama.cpp ({where} {', '.join(landmarks)}).", _OTHER)
    return min(found, key=lambda top: (top.count("/"), top))


def _parents(names: set[str], landmark: str) -> list[str]:
    return [name[: -len(landmark)].rstrip("/") for name in names if name == landmark or name.endswith(f"/{landmark}")]


def _joined(top: str, name: str) -> str:
    return f"{top}/{name}" if top else name


def _clean(name: str) -> str:
    """A member's name without './'."""
    return str(PurePosixPath(name))


def _is_wanted(name: str, top: str) -> bool:
    clean = _clean(name)
    inside = not top or clean.startswith(f"{top}/")
    return inside and ".git" not in (part.lower() for part in _below(name, top).split("/"))


def _below(name: str, top: str) -> str:
    return _clean(name)[len(top) + 1 if top else 0 :]


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _refused(archive: Path, why: str) -> ExpectedError:
    return ExpectedError(
        f"The archive {archive} is refused; nothing was written: {why}.",
        "get the archive again from a source that you trust",
    )


def _unreadable(archive: Path, failure: BaseException) -> ExpectedError:
    expected = from_system(failure, archive) if isinstance(failure, OSError) else None
    return expected or ExpectedError(
        f"The archive {archive} is damaged or not a tar archive: {failure}.", f"get it again, or {_OTHER}"
    )

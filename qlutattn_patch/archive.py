"""Safe reading of source archives: the whole archive is examined before anything is written."""

from __future__ import annotations

import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from qlutattn_patch.errors import ExpectedError

_DRIVE = re.compile(r"^[A-Za-z]:")
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)
_MAX_TEXT = 16 << 20
MAX_BYTES = 4 << 30  # no llama.cpp comes near it; a decompression bomb does

Progress = Callable[[int, int], None]


def unpack(archive: Path, target: Path, prefix: str | None, landmarks: Iterable[str], progress: Progress) -> None:
    """Write the files of one folder of a tar archive below `target`, which is made.

    The folder is the one called `prefix` below the archive's top folder; without a prefix it is the one that
    holds the landmarks. A `.git` entry in it (a submodule's) is left out. `progress` hears how many files of
    how many are written.
    """
    members = _examined(archive)
    files = [member for member in members if member.isfile()]
    top = _folder(archive, [member.name for member in files], prefix, tuple(landmarks))
    wanted = {member.name: _below(member.name, top) for member in files if _is_wanted(member.name, top)}
    target.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            done = 0
            for member in tar:
                if member.name in wanted and member.isfile():
                    _write(tar, member, target.joinpath(*wanted[member.name].split("/")))
                    done += 1
                    progress(done, len(wanted))
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None


def text_of(archive: Path, name: str) -> str | None:
    """A text file in the top folder of an archive, None if there is none."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if member.isfile() and _clean(member.name).partition("/")[2] == name:
                    source = tar.extractfile(member)
                    assert source is not None
                    return source.read(_MAX_TEXT).decode("utf-8", "replace")
    except FileNotFoundError:
        raise ExpectedError(f"There is no archive {archive}.") from None
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None
    return None


def _examined(archive: Path) -> list[tarfile.TarInfo]:
    """The members of an archive, every one of them harmless."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            members = tar.getmembers()
            # tarfile takes a header cut short for the end of the archive; a whole one ends in zeros
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("unexpected end of data")
    except FileNotFoundError:
        raise ExpectedError(f"There is no archive {archive}.") from None
    except _BROKEN as failure:
        raise _unreadable(archive, failure) from None
    for member in members:
        _refuse_if_hostile(archive, member)
    if sum(member.size for member in members) > MAX_BYTES:
        raise ExpectedError(f"The archive {archive} is refused: unpacked it has more than {MAX_BYTES >> 30} GiB.")
    return members


def _refuse_if_hostile(archive: Path, member: tarfile.TarInfo) -> None:
    name = member.name
    reason = None
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        reason = "has an absolute path"
    elif ".." in re.split(r"[/\\]", name):
        reason = "leads out of its folder"
    elif "\0" in name or "\\" in name:
        reason = "has a character that no source file has"
    elif member.issym() or member.islnk():
        reason = "is a link"
    elif not (member.isfile() or member.isdir()):
        reason = "is a device or another special file"
    if reason:
        raise ExpectedError(
            f"The archive {archive} is refused, nothing was written: its member '{name}' {reason}.",
            "get the archive again from a source that you trust",
        )


def _folder(archive: Path, names: list[str], prefix: str | None, landmarks: tuple[str, ...]) -> str:
    """The folder of the archive that holds the landmarks ('' is the archive's own top)."""
    there = {_clean(name) for name in names}
    firsts = {_clean(name).partition("/")[0] for name in names}
    candidates = [f"{first}/{prefix}" for first in firsts] + [prefix] if prefix else _parents(there, landmarks[0])
    found = [top for top in candidates if all(_joined(top, landmark) in there for landmark in landmarks)]
    if not found:
        where = f"a folder {prefix} with" if prefix else "a folder with"
        raise ExpectedError(f"The archive {archive} has no llama.cpp in it ({where} {', '.join(landmarks)}).")
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
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _unreadable(archive: Path, failure: BaseException) -> ExpectedError:
    return ExpectedError(
        f"The archive {archive} is damaged or no tar archive: {failure}.", "get it again, or name another with --from"
    )

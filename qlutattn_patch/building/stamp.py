"""What a build folder says of itself: what its cmake cache is made of, and what each target was built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import field

from qlutattn_patch.building.origin import Origin
from qlutattn_patch.system import digests
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.records import Record, Versioned, encoded, read

STAMP = "qlutattn-build.json"
# Targets that need nothing but ggml: its libraries decide what they do.
OURS = frozenset(("align_attn", "bench_attn"))
LARGE = (
    "LLAMA_BUILD_COMMON",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_TOOLS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_SERVER",
    "LLAMA_BUILD_APP",
)


class File(Record, frozen=True):
    """A file as it was: with the same size and time it counts as unchanged, otherwise its contents decide."""

    size: int
    mtime_ns: int
    sha256: str

    def is_still(self, path: Path) -> bool:
        try:
            now = path.stat()
            same = (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)
            return same or (now.st_size == self.size and digests.of_file(path) == self.sha256)
        except OSError:
            return False


class Built(Record, frozen=True):
    """A program: what it was built with (the facts of its cache), from what, and the files that it runs."""

    facts: Mapping[str, str]
    origin: Origin
    files: Mapping[str, File]

    def changed(self, bin: Path) -> list[str]:
        """The files that are not as they were."""
        return [name for name, file in self.files.items() if not file.is_still(bin / name)]

    def differences(self, other: Built) -> list[str]:
        """Why another build of the same program is another, in words."""
        return [*different_facts(self.facts, other.facts, ignored=LARGE), *self.origin.differences(other.origin)]

    @property
    def compiler(self) -> str:
        """What people want to know of how it was built."""
        named = [self.facts.get("C++ compiler"), self.facts.get("CMAKE_BUILD_TYPE"), self.facts.get("CXXFLAGS")]
        return ", ".join(name for name in named if name) or "nobody knows how"


UNKNOWN = Built({}, Origin(), {})


class Stamp(Versioned, frozen=True):
    """The facts of the cache, and what was built since it is there."""

    facts: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, Built] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        write_atomically(folder / STAMP, encoded(self))


def read_stamp(folder: Path) -> Stamp:
    """The stamp of a build folder; one that is missing or cannot be read says nothing."""
    try:
        return read(folder / STAMP, Stamp)
    except (OSError, ValueError):
        return Stamp()


def built_now(bin: Path, target: str, facts: Mapping[str, str], origin: Origin) -> Built | None:
    """A program and the libraries that it runs, as they are; None if the target is no program."""
    program = next((path for path in (bin / target, bin / f"{target}.exe") if path.is_file()), None)
    if program is None:
        return None
    libraries = bin.glob("*ggml*.*" if target in OURS else "*.*")
    files = {path.name: path for path in libraries if _is_library(path)} | {program.name: program}
    return Built(facts, origin, {name: _file(path) for name, path in sorted(files.items())})


def known(folder: Path, target: str) -> Built:
    """What is known of a program that is there: all, or if something else than `qlutattn build` made it, its files."""
    stamped = read_stamp(folder).targets.get(target)
    if stamped and not stamped.changed(folder / "bin"):
        return stamped
    return built_now(folder / "bin", target, {}, Origin()) or UNKNOWN


def different_facts(old: Mapping[str, str], new: Mapping[str, str], ignored: tuple[str, ...] = ()) -> list[str]:
    """What has changed from some facts to others, in words."""
    return [
        f"{_spoken(key)} changed from {old.get(key) or 'nothing'} to {new.get(key) or 'nothing'}"
        for key in sorted({*old, *new}, key=list({**new, **old}).index)
        if old.get(key) != new.get(key) and key not in ignored
    ]


def _spoken(key: str) -> str:
    return f"the {key}" if " " in key or key == "cmake" else key


def _is_library(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and any(end in path.name for end in (".so", ".dylib", ".dll"))


def _file(path: Path) -> File:
    found = path.stat()
    return File(found.st_size, found.st_mtime_ns, digests.of_file(path))

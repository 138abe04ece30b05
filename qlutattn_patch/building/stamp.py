"""The stamp of a build folder: what its cmake cache was configured with, and what each target was built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import field

from qlutattn_patch.building.origin import Origin
from qlutattn_patch.system import digests
from qlutattn_patch.system.files import write_atomically
from qlutattn_patch.system.records import Record, Versioned, encoded, read

STAMP = "qlutattn-build.json"
_NAMED = 5
# Targets that link ggml only: only its libraries affect them.
OURS = frozenset(("align_attn", "bench_attn", "bench_sampling"))
LARGE = (
    "LLAMA_BUILD_COMMON",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_TOOLS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_SERVER",
    "LLAMA_BUILD_APP",
)


class File(Record, frozen=True):
    """A file's state: with the same size and mtime it counts as unchanged, otherwise its digest decides."""

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
    """A program: the facts of its cmake cache, its origin, and the files that it runs."""

    facts: Mapping[str, str]
    origin: Origin
    files: Mapping[str, File]

    def changed(self, bin: Path) -> list[str]:
        """The files that have changed."""
        return [name for name, file in self.files.items() if not file.is_still(bin / name)]

    def differences(self, other: Built) -> list[str]:
        """How another build of the same program differs."""
        return [*different_facts(self.facts, other.facts, ignored=LARGE), *self.origin.differences(other.origin)]

    @property
    def compiler(self) -> str:
        """The compiler, build type and flags, for display."""
        named = [self.facts.get("C++ compiler"), self.facts.get("CMAKE_BUILD_TYPE"), self.facts.get("CXXFLAGS")]
        return ", ".join(name for name in named if name) or "unknown"


UNKNOWN = Built({}, Origin(), {})


class Stamp(Versioned, frozen=True):
    """The facts of the cmake cache, and the targets built with it."""

    facts: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, Built] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)  # the user's definitions among the facts

    def write(self, folder: Path) -> None:
        write_atomically(folder / STAMP, encoded(self))


def read_stamp(folder: Path) -> Stamp:
    """The stamp of a build folder; an empty one if it is missing or unreadable."""
    try:
        return read(folder / STAMP, Stamp)
    except (OSError, ValueError):
        return Stamp()


def built_now(bin: Path, target: str, facts: Mapping[str, str], origin: Origin) -> Built | None:
    """A program and its libraries as they are now; None if the target is not a program."""
    program = next((path for path in (bin / target, bin / f"{target}.exe") if path.is_file()), None)
    if program is None:
        return None
    libraries = bin.glob("*ggml*.*" if target in OURS else "*.*")
    files = {path.name: path for path in libraries if _is_library(path)} | {program.name: program}
    return Built(facts, origin, {name: _file(path) for name, path in sorted(files.items())})


def known(folder: Path, target: str) -> Built:
    """The record of an existing program; only its files if `qlutattn build` did not make it."""
    stamped = read_stamp(folder).targets.get(target)
    if stamped and not stamped.changed(folder / "bin"):
        return stamped
    return built_now(folder / "bin", target, {}, Origin()) or UNKNOWN


def why_stale(folder: Path, target: str, now: Origin | None) -> list[str]:
    """Why a program in a build folder is not one of the tree as it is `now` (None: not patched); empty if it is."""
    stamp = read_stamp(folder)
    built = stamp.targets.get(target)
    if built is None:
        return ["it is unknown what it was built from: its last build did not finish, or was not qlutattn's"]
    if now is None:
        return [f"{target} was built from a patched tree, and this one is not"]
    found = []
    if changed := built.changed(folder / "bin"):
        found.append(f"not as qlutattn build left it: {some(changed)}")
    if different := built.origin.differences(now):
        found.append(f"{' and '.join(different)} changed since {target} was built")
    different = different_facts(built.facts, stamp.facts, ignored=LARGE)
    return [*found, *([f"the folder was reconfigured since: {'; '.join(different)}"] if different else [])]


def some(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def different_facts(old: Mapping[str, str], new: Mapping[str, str], ignored: tuple[str, ...] = ()) -> list[str]:
    """Each difference between two sets of facts, as a sentence."""
    return [
        f"{_format_key(key)} changed from {old.get(key) or 'nothing'} to {new.get(key) or 'nothing'}"
        for key in sorted({*old, *new}, key=list({**new, **old}).index)
        if old.get(key) != new.get(key) and key not in ignored
    ]


def _format_key(key: str) -> str:
    return f"the {key}" if " " in key or key == "cmake" else key


def _is_library(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and any(end in path.name for end in (".so", ".dylib", ".dll"))


def _file(path: Path) -> File:
    found = path.stat()
    return File(found.st_size, found.st_mtime_ns, digests.of_file(path))

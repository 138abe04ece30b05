"""Find the programs that a build needs: path and version of each."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.building import install
from qlutattn_patch.building.presets import ARM64_SYSROOT, ARM64_TRIPLE, Preset, host_machine
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError

CMAKE_AT_LEAST = (3, 14)  # llama.cpp's own minimum
NINJA_AT_LEAST = (1, 10)  # cmake's minimum for the files that it writes today
_PAIRS = (("cc", "c++"), ("gcc", "g++"), ("clang", "clang++"))  # cmake's own order


@dataclass(frozen=True)
class Program:
    """A program that was found, and the first line of its `--version` output."""

    path: Path
    version_line: str

    @property
    def version(self) -> tuple[int, ...]:
        """The first dotted number in the version line."""
        found = re.search(r"\d+(?:\.\d+)+", self.version_line)
        return tuple(int(part) for part in found[0].split(".")) if found else ()

    def __str__(self) -> str:
        return f"{self.path} ({self.version_line})"


@dataclass(frozen=True)
class Compilers:
    """A C and a C++ compiler, as in CC and CXX (a program, optionally with arguments)."""

    cc: str
    cxx: str
    c_program: Program
    cxx_program: Program


def identify(path: Path) -> Program | None:
    """Ask a program for its version; None if it does not run."""
    try:
        result = process.capture([path, "--version"])
    except OSError:
        return None
    lines = result.stdout.strip().splitlines() or result.stderr.strip().splitlines()
    return Program(path, lines[0].strip() if lines else "no version") if result.status == 0 else None


def find_cmake() -> Program:
    """The system's cmake if it is new enough, else the one from the Python package `cmake`."""
    return _system_or_pypi("cmake", CMAKE_AT_LEAST)


def find_ninja() -> Program:
    """The system's ninja if it is new enough, else the one from the Python package `ninja`."""
    return _system_or_pypi("ninja", NINJA_AT_LEAST)


def find_compilers(preset: Preset) -> Compilers:
    """The compilers that a preset builds with."""
    if preset.clang:
        return _compilers("clang", "clang++")
    cc, cxx = os.environ.get("CC"), os.environ.get("CXX")
    pair = next((pair for pair in _PAIRS if all(shutil.which(name) for name in pair)), None)
    if not (cc and cxx) and pair is None:
        raise ExpectedError(
            "There is no C and C++ compiler: CC and CXX are not set, and cc, gcc and clang are not on PATH.",
            install.line(["c++"]),
        )
    default = pair or ("cc", "c++")
    return _compilers(cc or default[0], cxx or default[1])


def find_runner(preset: Preset) -> tuple[str, ...]:
    """The command prefix that runs a program of the preset here: empty, or qemu-user."""
    if not preset.is_cross:
        return ()
    qemu = process.find("qemu-aarch64") or process.find("qemu-aarch64-static")
    if qemu is None:
        raise ExpectedError(
            f"The preset '{preset.name}' needs qemu-aarch64 to run its programs on this {host_machine()} machine.",
            install.line(["qemu-aarch64"]),
        )
    return (str(qemu), "-L", str(ARM64_SYSROOT))


def check_compilers(preset: Preset, compilers: Compilers) -> None:
    """Raise an ExpectedError if the compilers cannot build for the preset."""
    if preset.is_cross and not preset.cross:
        raise ExpectedError(
            f"The preset '{preset.name}' is for {preset.machine}, and this machine is {host_machine()}.",
            "qlutattn build --preset native",
        )
    target = [f"--target={ARM64_TRIPLE}"] if preset.is_cross else []
    failure = _link_failure(compilers.cxx, [*target, *shlex.split(preset.flags)])
    if failure is None:
        return
    if preset.is_cross:
        needs, tools = "the arm64 sysroot", ["arm64 sysroot"]
    elif "sanitize" in preset.flags:
        needs, tools = "the sanitizer runtime", [_sanitizer_package(compilers.cxx_program)]
    else:
        needs, tools = "a working C++ toolchain", ["c++"]
    raise ExpectedError(
        f"'{compilers.cxx}' cannot link a program with {shlex.join([*target, preset.flags]) or 'no flags'}"
        f" ({needs} may be missing): {failure}",
        install.line(tools),
    )


def has_lld(preset: Preset, compilers: Compilers) -> bool:
    """Whether the compiler can link with lld here."""
    target = [f"--target={ARM64_TRIPLE}"] if preset.is_cross else []
    return _link_failure(compilers.cxx, [*target, *shlex.split(preset.flags), "-fuse-ld=lld"]) is None


def _system_or_pypi(name: str, at_least: tuple[int, ...]) -> Program:
    own = Path(sysconfig.get_path("scripts"))
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own]
    for path in (shutil.which(name, path=os.pathsep.join(folders)), shutil.which(name, path=str(own))):
        program = identify(Path(path)) if path else None
        if program and program.version >= at_least:
            return program
    needed = ".".join(str(part) for part in at_least)
    raise ExpectedError(
        f"There is no {name} {needed} or newer, neither on PATH nor from the Python package '{name}'.",
        f"python -m pip install {name}",
    )


def _compilers(cc: str, cxx: str) -> Compilers:
    return Compilers(cc, cxx, _compiler(cc), _compiler(cxx))


def _compiler(command: str) -> Program:
    name = shlex.split(command)[0]
    path = process.find(name)
    if path is None:
        tool = "clang" if "clang" in name else "c++"
        raise ExpectedError(f"The compiler '{name}' is not on PATH.", install.line([tool]))
    program = identify(path)
    if program is None:
        raise ExpectedError(
            f"The compiler '{path}' does not run: '{path} --version' fails.", "set CC and CXX to a compiler that works"
        )
    return program


def _link_failure(cxx: str, flags: list[str]) -> str | None:
    """The compiler's last error line for a trivial program; None if it can link one."""
    with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
        argv = [*shlex.split(cxx), *flags, "-x", "c++", "-", "-o", str(Path(folder) / "a.out")]
        result = process.capture(argv, input="#include <vector>\nint main() { return std::vector<int>(1)[0]; }\n")
    if result.status == 0:
        return None
    return next(
        (line for line in result.stderr.strip().splitlines() if "error" in line or "cannot" in line), "no reason given"
    )


def _sanitizer_package(program: Program) -> str:
    return f"libclang-rt-{program.version[0]}-dev" if "clang" in program.version_line and program.version else "c++"

"""Report the tools that this machine has and lacks, and the command that installs the missing ones."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.building import install, toolchain
from qlutattn_patch.building.presets import ARM64_SYSROOT, host_machine, preset
from qlutattn_patch.building.toolchain import Program
from qlutattn_patch.system import process
from qlutattn_patch.system.errors import ExpectedError

_GIB = 1024**3
_DISK_NEEDED = 2 * _GIB  # the tree and one or two build folders
_RELEVANT_ISA = (
    *("ssse3", "sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vbmi"),
    *("avx512_vnni", "avx512_bf16", "amx_int8"),
    *("asimd", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Finding:
    """A tool, package or resource that was checked."""

    name: str
    needed_for: str
    required: bool  # whether `qlutattn run` needs it
    ok: bool
    path: str = ""
    version: str = ""
    tool: str = ""  # its name in `install`, if it can be installed


@dataclass(frozen=True)
class Report:
    """All findings, and this machine's CPU."""

    findings: tuple[Finding, ...]
    machine: str
    isa: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether `qlutattn run` can work."""
        return all(finding.ok for finding in self.findings if finding.required)

    @property
    def missing(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.ok]

    @property
    def install(self) -> str | None:
        """One command that installs everything missing that can be installed."""
        tools = [finding.tool for finding in self.missing if finding.tool]
        return install.line(tools) if tools else None


def examine(home: Path) -> Report:
    """Check everything that any command uses."""
    findings = [
        _python(),
        _searched("git", "getting llama.cpp and patching it", True, lambda: _on_path("git")),
        _searched("C compiler", "building", True, lambda: _host_compiler("cc"), "c++"),
        _searched("C++ compiler", "building", True, lambda: _host_compiler("cxx"), "c++"),
        _searched("cmake", "building", True, toolchain.find_cmake),
        _searched("ninja", "building", True, toolchain.find_ninja),
        _disk(home),
        _searched("clang", "the preset arm64", False, lambda: toolchain.find_compilers(preset("arm64")).cxx_program),
        _searched("ccache", "building again in seconds", False, lambda: _on_path("ccache")),
        _searched("lld", "linking faster", False, lambda: _on_path("ld.lld")),
    ]
    if host_machine() != "arm64":
        findings += [
            _sysroot(),
            _searched("qemu-aarch64", "running the preset arm64", False, _qemu),
        ]
    findings.append(_package("torch", "comparing with libtorch in align_attn (-DLLAMA_TORCH=ON)"))
    return Report(tuple(findings), host_machine(), _isa())


def _searched(name: str, needed_for: str, required: bool, search: Callable[[], Program], tool: str = "") -> Finding:
    try:
        program = search()
    except ExpectedError:
        return Finding(name, needed_for, required, False, tool=tool or name)
    return Finding(name, needed_for, required, True, str(program.path), _number(program.version_line), tool or name)


def _on_path(name: str) -> Program:
    program = toolchain.identify(process.require(name, install.line([name])))
    if program is None:
        raise ExpectedError(f"'{name} --version' fails.")
    return program


def _host_compiler(which: str) -> Program:
    compilers = toolchain.find_compilers(preset("native"))
    return compilers.c_program if which == "cc" else compilers.cxx_program


def _qemu() -> Program:
    program = toolchain.identify(Path(toolchain.find_runner(preset("arm64"))[0]))
    if program is None:
        raise ExpectedError("qemu-aarch64 does not run.")
    return program


def _python() -> Finding:
    ok = sys.version_info >= (3, 10)
    return Finding("Python >= 3.10", "qlutattn", True, ok, sys.executable, platform.python_version())


def _disk(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / _GIB:.1f} GiB free, {_DISK_NEEDED / _GIB:.0f} GiB needed"
    return Finding("disk space", "the tree and its builds", True, free >= _DISK_NEEDED, str(home), detail)


def _sysroot() -> Finding:
    """The headers and libraries of arm64 Linux, from the cross gcc."""
    ok = (ARM64_SYSROOT / "include").is_dir() and (ARM64_SYSROOT / "lib" / "libstdc++.so.6").exists()
    path = str(ARM64_SYSROOT) if ok else ""
    return Finding("arm64 sysroot", "cross-compiling the preset arm64", False, ok, path, tool="arm64 sysroot")


def _package(name: str, needed_for: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(f"Python package {name}", needed_for, False, False)
    return Finding(f"Python package {name}", needed_for, False, True, sys.prefix, version)


def _number(version_line: str) -> str:
    found = re.search(r"\d+(?:\.\d+)+", version_line)
    return found[0] if found else version_line


def _isa() -> tuple[str, ...]:
    """The relevant instruction sets of this CPU, as the system names them."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _isa_of_macos()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for name in _RELEVANT_ISA if name in flags)


def _isa_of_macos() -> tuple[str, ...]:
    if not process.find("sysctl"):
        return ()
    features = process.capture(
        ["sysctl", "hw.optional", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
    ).stdout.lower()
    arm = re.findall(r"hw\.optional\.arm\.feat_(\w+): 1", features)
    names = {word.replace(".", "_") for word in features.split()}
    return (*(name for name in _RELEVANT_ISA if name in names), *arm)
